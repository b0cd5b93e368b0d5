"""Page with the number of losses in each observed group, and in common to each two."""

from pathlib import Path

from stagewise.files.writing import write_text_file

CLASSES_NAME = "classes.md"
"""Name of the page in the folder of a run or a sweep."""


def classes_page(tables: str, *, unit: str) -> str:
    """Returns the page as Markdown.

    Args:
        tables: from :meth:`stagewise.lm.classes.Coverage.markdown`.
        unit: unit of the counts: ``targets`` (of tokens) or ``samples``.
    """
    heading = "Tokens of the observed classes" if unit == "targets" else f"{unit.capitalize()} of the observed groups"
    return f"# {heading}\n\n{tables}\n"


def write_classes_page(folder: Path, page: str) -> Path:
    """Writes the page atomically; returns its path."""
    return write_text_file(folder / CLASSES_NAME, page)


def classes_section(folder: Path) -> str | None:
    """Returns the page of a run as a section of its report; None if it has none."""
    path = folder / CLASSES_NAME
    # Others may have written it: show HTML, do not render it.
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return f"#{text.replace('<', '&lt;')}"
