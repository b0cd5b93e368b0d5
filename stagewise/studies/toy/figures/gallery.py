"""All figures of the report, in its order."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from matplotlib.figure import Figure

from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.agreement import agreement
from stagewise.studies.toy.figures.flips import flips
from stagewise.studies.toy.figures.learning import learning
from stagewise.studies.toy.figures.representations import representations
from stagewise.studies.toy.figures.showcase import showcase
from stagewise.studies.toy.figures.tracin import tracin
from stagewise.studies.toy.figures.transitions import transitions
from stagewise.studies.toy.figures.windows import windows
from stagewise.studies.toy.validation import SeedResult

Draw = Callable[[Sequence[SeedResult], ToyConfig], Figure]

DPI = 110

FIGURES: Mapping[str, Draw] = MappingProxyType(
    {
        "learning": learning,
        "showcase": showcase,
        "agreement": agreement,
        "flips": flips,
        "transitions": transitions,
        "windows": windows,
        "representations": representations,
        "tracin": tracin,
    }
)
"""File stem to the function that draws it, in the order of the report."""


def write_figures(folder: Path, results: Sequence[SeedResult], config: ToyConfig) -> list[Path]:
    """Draws all figures and writes each as ``<stem>.png``.

    Args:
        folder: created if missing.
        results: one for each seed; the first is shown in detail.
        config: of the experiment.

    Returns:
        The files, in the order of :data:`FIGURES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for stem, draw in FIGURES.items():
        path = folder / f"{stem}.png"
        draw(results, config).savefig(path, dpi=DPI)
        written.append(path)
    return written
