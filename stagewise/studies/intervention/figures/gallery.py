"""All figures of the intervention experiment, as PNG."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from stagewise.studies.intervention.cell import Cell
from stagewise.studies.intervention.figures.bars import acceleration_figure, costs_figure
from stagewise.studies.intervention.figures.curves import curves_figure
from stagewise.studies.intervention.figures.sweep import sweep_figure
from stagewise.studies.intervention.results import Summary


def write_figures(folder: Path, found: Summary, cells: Sequence[Cell]) -> list[str]:
    """Write the figures for which there are cells; returns their names without ending.

    Args:
        folder: made where it is missing.
        found: see :func:`~stagewise.studies.intervention.results.summarize`.
        cells: finished ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure | None] = {
        "acceleration": acceleration_figure(found),
        "sweep": sweep_figure(found),
        "curves": curves_figure(found, cells),
        "costs": costs_figure(found),
    }
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(folder / f"{name}.png", dpi=110)
    return [name for name, figure in figures.items() if figure is not None]
