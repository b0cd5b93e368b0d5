"""``report.html``: results of one run or comparison of several, in one self-contained file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from stagewise._version import __version__
from stagewise.checks.counted import counted
from stagewise.errors import require
from stagewise.files.writing import write_text_file
from stagewise.reporting.glossary import TERMS
from stagewise.reporting.html.blocks import Section, inline, with_breaks
from stagewise.reporting.html.comparison import comparison_sections
from stagewise.reporting.html.sections import run_sections
from stagewise.reporting.scores import Score, read_scores
from stagewise.runs.sign_changes import SignChanges, find_sign_changes
from stagewise.runs.words import with_plain_names

HTML_NAME, FOLDER_NAME = "report.html", "report"
"""Names of the file, and of its folder inside that of the run."""

_NUMBER = re.compile(r"^[-+±]?[\d.,]+(e[-+]?\d+)?( %)?$|^-$")


@dataclass(frozen=True)
class OpenedRun:
    """Run of a report.

    Attributes:
        folder: of the run.
        data: as :func:`stagewise.runs.open.open_run` returns it, with plain names of groups.
    """

    folder: Path
    data: xr.Dataset

    @classmethod
    def of(cls, folder: Path, data: xr.Dataset) -> "OpenedRun":
        """Creates it from a run whose groups have any names.

        Args:
            folder: of the run.
            data: as :func:`stagewise.runs.open.open_run` returns it.
        """
        return cls(folder, with_plain_names(data))


def write_html_report(
    path: Path,
    runs: Sequence[OpenedRun],
    *,
    chance: float = 0.05,
    changes: SignChanges | None = None,
    figures: Mapping[str, Figure] | None = None,
    scores: Sequence[Score] | None = None,
) -> Path:
    """Writes the page atomically.

    Args:
        path: of the file.
        runs: one to describe in detail, or several to overlay and compare.
        chance: see :func:`~stagewise.runs.sign_changes.find_sign_changes`.
        changes: sign changes of a single run, if already known.
        figures: of a single run, by name, if already drawn: ``curves_within``, ``llc``, ``control``.
        scores: of a single run, if already read.

    Returns:
        The path.

    Raises:
        InputError: no run, or one without group influence or with a single probe.
    """
    require(len(runs) >= 1, "runs", len(runs), "one or more", "name the log directory of a run")
    if len(runs) > 1:
        sections = comparison_sections([(item.folder, item.data) for item in runs], chance=chance)
        title = f"How {len(runs)} runs compare"
        about = "; ".join(f"`{item.folder}`" for item in runs[:6]) + (
            "" if len(runs) <= 6 else f" and {len(runs) - 6} more"
        )
        return write_text_file(path, page(title, about, sections))
    (one,) = runs
    run = one.data
    sections = run_sections(
        run,
        one.folder,
        find_sign_changes(run, chance=chance) if changes is None else changes,
        read_scores(one.folder) if scores is None else scores,
        chance=chance,
        figures=figures,
    )
    steps = run["step"].values
    about = f"`{one.folder}`: {counted(len(steps), 'probe')}, steps {steps[0]:,} to {steps[-1]:,}"
    return write_text_file(path, page("What the influence of this run shows", about, sections))


def page(title: str, about: str, sections: Sequence[Section]) -> str:
    """Renders the page as HTML.

    Args:
        title: of the page.
        about: line under the title.
        sections: in order; those without blocks are left out.
    """
    house = Environment(
        loader=PackageLoader("stagewise.reporting.html", "."), autoescape=True, undefined=StrictUndefined
    )
    house.filters |= {"inline": inline, "cell_class": cell_class, "with_breaks": with_breaks}
    footer = (
        f"Written by stagewise {__version__}. Influence (BIF) is minus the covariance of losses over the draws of "
        "chains around the training weights, in nats²; negative = helpful."
    )
    template = house.get_template("report.html.j2")
    return template.render(
        title=title,
        about=about,
        sections=[section for section in sections if section.blocks],
        glossary=list(TERMS.items()),
        footer=footer,
    )


def cell_class(cell: str) -> str:
    """Returns the CSS class of a table's cell: an answer of the verdict, a number, or neither.

    Args:
        cell: its text.
    """
    if cell in ("yes", "partly", "no"):
        return cell
    return "figure" if _NUMBER.match(cell) else ""
