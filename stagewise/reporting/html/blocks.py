"""Blocks of a report as plain data; the template renders each kind."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Text:
    """Paragraph; ``**strong**`` and code between backticks are rendered, everything else is literal."""

    kind: ClassVar[str] = "text"
    words: str
    quiet: bool = False


@dataclass(frozen=True)
class Items:
    """List of lines with the same markup as :class:`Text`."""

    kind: ClassVar[str] = "items"
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Heading:
    """Heading inside a section."""

    kind: ClassVar[str] = "heading"
    words: str


@dataclass(frozen=True)
class Table:
    """Table; numbers are right-aligned.

    Attributes:
        head: of the columns.
        rows: one cell per column; answers of the verdict are coloured.
        summary: label of the collapsed table; shown open if empty.
    """

    kind: ClassVar[str] = "table"
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    summary: str = ""


@dataclass(frozen=True)
class Code:
    """Commands or code, verbatim."""

    kind: ClassVar[str] = "code"
    words: str


@dataclass(frozen=True)
class Picture:
    """Figure.

    Attributes:
        source: ``data:`` URL of the image.
        about: alternative text.
        narrow: URL of a version for phones; empty without one.
        chart: True if its colours may be inverted on a dark page.
    """

    kind: ClassVar[str] = "picture"
    source: str
    about: str
    narrow: str = ""
    chart: bool = True


@dataclass(frozen=True)
class Slider:
    """Matrices of one kind over training: the last one first, the others by a slider.

    Attributes:
        name: of its elements in the page, letters only.
        about: description of the matrices.
        steps: training step of each.
        rows: names of rows and columns if there are few enough for a table; else empty.
        values: cells of each table ``[step][row][column]``: text, background, text colour; empty for pictures.
        pictures: a ``data:`` URL for each step; empty for tables.
        limit: description of the limits of the colours.
        borders: of groups in the pictures, as shares of a side.
    """

    kind: ClassVar[str] = "slider"
    name: str
    about: str
    steps: tuple[int, ...]
    limit: str
    rows: tuple[str, ...] = ()
    values: tuple[tuple[tuple[tuple[str, str, str], ...], ...], ...] = ()
    pictures: tuple[str, ...] = ()
    borders: tuple[float, ...] = ()


Block = Text | Items | Heading | Table | Code | Picture | Slider


@dataclass(frozen=True)
class Section:
    """Part of a report.

    Attributes:
        name: of its anchor, letters only.
        title: its heading.
        blocks: in order; a section without any is left out.
    """

    name: str
    title: str
    blocks: tuple[Block, ...] = field(default=())


_SPANS = re.compile(r"(?<!\\)\*\*(.+?)\*\*|(?<!\\)`([^`]+)`|(?<![\*\\])\*(\w[^*]*)\*")
_TAGS = (None, "strong", "code", "em")
"""HTML tags for the groups of that expression."""

_ESCAPED = re.compile(r"\\([\\`*_\]|~$])")


def inline(words: object) -> Markup:
    """Renders a line of our Markdown as HTML: strong words, emphasis and code; everything else is escaped."""
    text, place, found = str(words), 0, Markup("")
    for match in _SPANS.finditer(text):
        tag = _TAGS[match.lastindex or 0]
        found += _plain(text[place : match.start()])
        found += Markup(f"<{tag}>") + _plain(match[match.lastindex or 0]) + Markup(f"</{tag}>")
        place = match.end()
    return found + _plain(text[place:])


_NUMBERS = re.compile(r"(?<![\w.])[-+±]\s?\d[\d.,]*(?:e[-+]?\d+)?|(?<![\w.])\d[\d.,]*e[-+]?\d+")
"""Numbers with a sign or an exponent, at which a browser would break a line."""


def _plain(words: str) -> Markup:
    """Undoes the escapes of our Markdown, then escapes for HTML."""
    text, place, found = html.unescape(_ESCAPED.sub(r"\1", words)), 0, Markup("")
    for match in _NUMBERS.finditer(text):
        found += escape(text[place : match.start()]) + Markup('<span class="number">') + escape(match[0])
        found += Markup("</span>")
        place = match.end()
    return found + escape(text[place:])


_ENDS = re.compile(r"(?<=[_/.])(?=\w)")
"""Places in a name where a narrow page may break it."""


def with_breaks(name: str) -> Markup:
    """Returns a name as HTML that may break after its underscores, slashes and dots, but not between letters.

    Args:
        name: of a group.
    """
    return Markup("<wbr>").join(_ENDS.split(name))


def of_markdown(text: str) -> list[Block]:
    """Returns the blocks of our Markdown: paragraphs, headings, lists and tables. Pictures are left out.

    Args:
        text: in the Markdown of the other reports.
    """
    found: list[Block] = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in part.splitlines() if line.strip()]
        if not lines or lines[0].startswith("!["):
            continue
        if lines[0].startswith("#"):
            found.append(Heading(lines[0].lstrip("# ")))
        elif lines[0].startswith("|") and len(lines) > 2:
            found.append(table_of([_cells(line) for line in (lines[0], *lines[2:])]))
        elif all(line.startswith("- ") for line in lines):
            found.append(Items(tuple(line[2:] for line in lines)))
        else:
            found.append(Text(" ".join(lines)))
    return found


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")))


def table_of(rows: Sequence[Iterable[object]], summary: str = "") -> Table:
    """Returns a table of any values; the first row is its head.

    Args:
        rows: of cells.
        summary: see :class:`Table`.
    """
    cells = [tuple(str(cell) for cell in row) for row in rows]
    return Table(cells[0], tuple(cells[1:]), summary)
