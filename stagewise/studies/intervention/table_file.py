"""Cells as one Parquet file, one row each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from stagewise.files.writing import whole_file
from stagewise.studies.intervention.cell import Cell


def _row(cell: Cell, groups: Sequence[str]) -> dict[str, Any]:
    curve, ablation = cell.curve, cell.ablation
    return {
        "seed": cell.seed,
        "name": cell.name,
        "arm": cell.arm,
        "mechanism": cell.mechanism,
        "window_start": cell.windows[0][0] if cell.windows else None,
        "window_end": cell.windows[0][1] if cell.windows else None,
        "window_starts": [start for start, _ in cell.windows],
        "window_ends": [end for _, end in cell.windows],
        "score_step": curve.score_step if curve else None,
        "gap_step": curve.gap_step if curve else None,
        "mean_score": cell.mean_score,
        **{f"final_loss/{group}": cell.final_losses.get(group) for group in groups},
        "ablation_layer": ablation.layer if ablation else None,
        "ablation_head": ablation.head if ablation else None,
        "ablation_loss": ablation.loss if ablation else None,
        "ablation_loss_without": ablation.loss_without if ablation else None,
        "moved": cell.moved,
        "branched_at": cell.branched_at,
        "max_steps": cell.max_steps,
        "seconds": cell.seconds,
        "note": cell.note,
        "steps": list(curve.steps) if curve else None,
        "prefix_matching": list(curve.prefix_matching) if curve else None,
        "loss_gap": list(curve.loss_gap) if curve else None,
    }


_WHOLE: tuple[str, ...] = (
    "seed",
    "window_start",
    "window_end",
    "score_step",
    "gap_step",
    "ablation_layer",
    "ablation_head",
)
_WHOLE += ("branched_at", "max_steps")
_WORDS = ("name", "arm", "mechanism", "note")


def _kind(column: str) -> pa.DataType:
    if column in _WORDS:
        return pa.string()
    if column in _WHOLE:
        return pa.int64()
    if column in ("steps", "window_starts", "window_ends"):
        return pa.list_(pa.int64())
    return pa.list_(pa.float64()) if column in ("prefix_matching", "loss_gap") else pa.float64()


def write_cells_parquet(path: Path, cells: Sequence[Cell]) -> Path:
    """Writes one row per cell atomically, with null for missing values; returns the path.

    Args:
        path: of the file.
        cells: at least one.
    """
    groups = sorted({group for cell in cells for group in cell.final_losses})
    rows = [_row(cell, groups) for cell in sorted(cells, key=lambda cell: (cell.seed, cell.name))]
    schema = pa.schema([(column, _kind(column)) for column in rows[0]])
    with whole_file(path) as aside:
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), aside)
    return path
