"""Names of groups, restricted so that they appear unchanged in tags, Markdown, HTML, figures and files."""

import unicodedata
from collections.abc import Iterable

from stagewise.checks.bounds import shown
from stagewise.errors import InputError

FORBIDDEN = '~/\\|<>&"`*[]$'
"""Characters with a meaning where names are shown: the first two in tags, the others in Markdown, HTML and figures."""

_LONGEST = 100


def _fault(name: str) -> str | None:
    if not name:
        return "which is empty"
    if len(name) > _LONGEST:
        return f"of {len(name):,} characters"
    found = next((letter for letter in name if letter in FORBIDDEN or not letter.isprintable()), None)
    if found is not None:
        return f"with {found!r}" if found.isprintable() else f"with the unprintable {found!a}"
    return "with a space at an end" if name != name.strip() else None


def check_group_names(names: Iterable[object], *, kind: str = "group") -> tuple[str, ...]:
    """Refuses names that cannot be shown unchanged, or cannot be distinguished.

    Args:
        names: of the groups, in order.
        kind: kind of things named, for messages.

    Returns:
        The names.

    Raises:
        InputError: a name that is not text, is empty, is longer than 100 characters, begins or ends with a space, or
            contains one of :data:`FORBIDDEN` or a character that is not printable (newlines, control characters,
            characters that change the direction of text or have no width); or two names that are equal, or equivalent
            in Unicode (NFKC) and so indistinguishable to a reader.
    """
    known: dict[str, str] = {}
    for name in names:
        fault = _fault(name) if isinstance(name, str) else f"of type {type(name).__name__}"
        if fault is not None or not isinstance(name, str):
            raise InputError(
                f"got {kind} name {shown(name)}, {fault}; expected 1 to {_LONGEST} printable characters without "
                f"{' '.join(FORBIDDEN)}; use letters, digits, spaces, _ - . : + = ( )"
            )
        same = unicodedata.normalize("NFKC", name)
        if same in known:
            first = known[same]
            twice = "twice" if first == name else f"beside {first!r}, which is written the same"
            raise InputError(f"got {kind} name {name!r} {twice}; expected names that differ; rename one")
        known[same] = name
    return tuple(known.values())


def plain_names(names: Iterable[object]) -> tuple[str, ...]:
    """Makes names from other programs or earlier versions valid: ``_`` replaces forbidden characters.

    Args:
        names: as found in a file.

    Returns:
        As many distinct names; valid ones are unchanged.
    """
    given = [str(name) for name in names]
    taken = {name for name in given if _fault(name) is None}
    found: list[str] = []
    for name in given:
        if _fault(name) is not None:
            letters = "".join(
                "_" if letter in FORBIDDEN or not letter.isprintable() else letter for letter in name[: _LONGEST - 10]
            )
            base = letters.strip() or "_"
            number, name = 1, base
            while name in taken:
                number += 1
                name = f"{base} {number}"
            taken.add(name)
        found.append(name)
    return tuple(found)


def markdown_text(text: str) -> str:
    """Escapes any text for a line of Markdown or a cell of a table, so that it appears literally.

    Args:
        text: from elsewhere: a reason, the name of a function.
    """
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_]|~$" else letter for letter in line)
