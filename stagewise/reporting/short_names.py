"""Names that fit a legend, and still differ."""

from collections.abc import Iterable

LONGEST = 26
"""Characters of a name in a legend."""


def short_name(name: str, longest: int = LONGEST) -> str:
    """A name that fits: its middle left out where it is longer.

    Args:
        name: of a group, a pair or an arm.
        longest: characters, 5 at least.
    """
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return f"{name[: longest - 1 - end]}…{name[-end:]}"


def short_names(names: Iterable[str], longest: int = LONGEST) -> dict[str, str]:
    """Names that fit and differ: of those that would be the same, what comes before they part is left out.

    Args:
        names: that differ.
        longest: characters, 12 at least.

    Returns:
        The short form of each; a number stands behind those that still are the same.
    """
    given = list(names)
    found = {name: short_name(name, longest) for name in given}
    alike: dict[str, list[str]] = {}
    for name, short in found.items():
        alike.setdefault(short, []).append(name)
    for together in alike.values():
        if len(together) > 1:
            columns = enumerate(zip(*together, strict=False))
            start = next((at for at, letters in columns if len(set(letters)) > 1), min(map(len, together)))
            head = longest // 3
            room = longest - head - 2
            for name in together:
                rest = name[max(start - 2, head) :]
                found[name] = f"{name[:head]}…{rest[:room]}" + ("…" if len(rest) > room else "")
    taken: dict[str, int] = {}
    for name in given:
        short = found[name]
        taken[short] = taken.get(short, 0) + 1
        if taken[short] > 1:
            found[name] = f"{short[: longest - 4]} ({taken[short]})"
    return found
