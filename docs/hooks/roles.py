"""Griffe extension: Sphinx roles in docstrings as links between pages, or as code where no page has the name."""

import re
from typing import Any

from griffe import Docstring, Extension, Object

ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc|obj):`(?P<short>~?)(?P<name>[^`]+)`")


def link(role: re.Match[str]) -> str:
    """A reference that is resolved where it can be, and code where it cannot."""
    name = role["name"]
    shown = name.rpartition(".")[2] if role["short"] else name
    return f'<autoref identifier="{name}" optional>`{shown}`</autoref>'


class Roles(Extension):
    """Changes the text of each docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each object once it is read."""
        if isinstance(obj.docstring, Docstring):
            obj.docstring.value = ROLE.sub(link, obj.docstring.value)
