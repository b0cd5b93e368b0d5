"""Colours of tokens: blue = negative = helpful, red = positive = harmful, white = zero."""

HELPFUL, HARMFUL = (33, 102, 172), (178, 24, 43)
"""Full colours, red green blue."""


def background(share: float) -> tuple[int, int, int]:
    """Red, green and blue from 0 to 255, linear from white to the full colours.

    Args:
        share: value over limit, clipped to -1 to 1.
    """
    full, size = (HELPFUL if share < 0 else HARMFUL), min(1.0, abs(share))
    red, green, blue = (round(255 + size * (it - 255)) for it in full)
    return red, green, blue


def is_dark(colour: tuple[int, int, int]) -> bool:
    """Whether letters on this colour must be white to be read."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
