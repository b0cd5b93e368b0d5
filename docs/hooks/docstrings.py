"""Griffe extension: what docstrings have for readers of the source, as Markdown for readers of the site."""

import re
from typing import Any

from griffe import Docstring, Extension, Object

ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc|obj):`(?P<short>~?)(?P<name>[^`]+)`")
ANCHOR = re.compile(r"\bw\*(?![*`])")
MEMBERS = "Members are named as the YAML writes them:\n"


def link(role: re.Match[str]) -> str:
    """A Sphinx role as a reference that is resolved where a page has the name, and as code elsewhere."""
    name = role["name"]
    shown = name.rpartition(".")[2] if role["short"] else name
    return f'<autoref identifier="{name}" optional>`{shown}`</autoref>'


def members(text: str) -> str:
    """The members of an enumeration as a list."""
    before, heading, after = text.partition(MEMBERS)
    if not heading:
        return text
    listed = re.sub(r"^    (\w+): ", r"- `\1`: ", after, flags=re.MULTILINE)
    return f"{before}{heading}\n{re.sub(r'^        ', '  ', listed, flags=re.MULTILINE)}"


class Markdown(Extension):
    """Changes the text of each docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each object once it is read."""
        if isinstance(obj.docstring, Docstring):
            text = members(ROLE.sub(link, obj.docstring.value))
            # The weights w*, of which Markdown would make emphasis; and a literal block's mark.
            obj.docstring.value = re.sub(r"::$", ":", ANCHOR.sub(r"w\\*", text), flags=re.MULTILINE)
