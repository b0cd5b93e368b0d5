"""Short names for legends that still differ."""

from collections.abc import Iterable

LONGEST = 26
"""Characters of a name in a legend."""


def short_name(name: str, longest: int = LONGEST) -> str:
    """Shortens a name that is too long by leaving out its middle.

    Args:
        name: of a group, a pair or an arm.
        longest: maximal number of characters, at least 5.
    """
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return f"{name[: longest - 1 - end]}…{name[-end:]}"


def short_names(names: Iterable[str], longest: int = LONGEST) -> dict[str, str]:
    """Shortens names so that they still differ: where short forms coincide, the text before the difference is left out.

    Args:
        names: distinct names.
        longest: maximal number of characters, at least 12.

    Returns:
        The short form of each name; remaining duplicates get a number.
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
