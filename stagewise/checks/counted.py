"""Counts in words."""


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, in singular for one: ``1 probe``, ``2 probes``, ``1,000 steps``.

    Args:
        number: 0 or more.
        noun: in singular; its plural ends in ``s``.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
