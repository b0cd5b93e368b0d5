"""Counts with their nouns."""


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, singular for one: ``1 probe``, ``2 probes``, ``1,000 steps``.

    Args:
        number: 0 or more.
        noun: singular; its plural is formed with ``s``.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
