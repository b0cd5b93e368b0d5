"""Long tables of a sweep, one line for each number."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from stagewise.files.writing import write_text_file
from stagewise.influence.chain_counts import chain_counts, equilibrated_probes
from stagewise.sweep.circuits import SCORES, TABLES, Circuits

GROUPS_NAME, CIRCUITS_NAME = "groups.csv", "circuits.csv"

GROUP_COLUMNS = (
    "step",
    "component",
    "part",
    "group",
    "group_j",
    "bif",
    "se",
    "z",
    "correlation",
    "llc",
    "llc_se",
    "llc_all",
    "llc_all_se",
    "llc_localized_share",
    "num_chains",
    "num_draws",
    "reference_step",
    "equilibrated",
    "flags",
)
"""``bif`` and ``se`` in nats^2, negative = helpful; ``z`` and ``correlation`` are pure numbers of the same sign.
``llc`` is the local learning coefficient of ``group``, ``llc_all`` that of all losses, each with its error over chains,
and ``llc_localized_share`` tells how much of the latter is the localization's: the same in all lines of a step, a
component and a group. Empty where undefined, ``z`` also where ``equilibrated`` is 0: the chains of the checkpoint or of
its reference are not. ``num_chains`` are those that both have in common. ``reference_step`` is the step itself where
there is no reference."""

CIRCUIT_COLUMNS = ("step", "layer", "head", *TABLES, *SCORES)
"""Scores of heads, 0 to 1, copying -1 to 1; then scores of the whole model, nats per token, the same in all lines of a
step."""

_VALUES = {
    "bif": "group_bif",
    "se": "group_bif_se",
    "z": "group_bif_z",
    "correlation": "group_bif_correlation",
}


_LLC = ("llc", "llc_se", "llc_localized_share")


def _llc_cells(probe: xr.Dataset, group: int) -> list[str]:
    """Returns learning coefficients in the order of the columns; empty where they were not measured."""
    value, error, share = (float(probe[name]) if name in probe else None for name in _LLC)
    own = [float(probe[f"group_{name}"][group]) if name in probe else None for name in _LLC[:2]]
    return [_cell(entry) for entry in (*own, value, error, share)]


def group_rows(probe: xr.Dataset, component: str, *, num_draws: int) -> list[list[Any]]:
    """Returns lines of one checkpoint: each part of each ordered pair of groups.

    Args:
        probe: its data set.
        component: whose chains.
        num_draws: of each chain.
    """
    step, reference = int(probe.attrs["step"]), int(probe.attrs["reference_step"])
    flags = " ".join(probe.attrs["flags"])
    num_chains, settled = int(chain_counts(probe)), int(equilibrated_probes(probe))
    values = {name: probe[variable].transpose("part", "group", "group_j").values for name, variable in _VALUES.items()}
    coefficients = [_llc_cells(probe, row) for row in range(probe.sizes["group"])]
    parts, groups = ([str(name) for name in probe[axis].values] for axis in ("part", "group"))
    return [
        [
            *(step, component, part, group, group_j),
            *(_cell(values[name][row, i, j]) for name in _VALUES),
            *coefficients[i],
            *(num_chains, num_draws, reference, settled, flags),
        ]
        for row, part in enumerate(parts)
        for i, group in enumerate(groups)
        for j, group_j in enumerate(groups)
    ]


def circuit_rows(step: int, circuits: Circuits) -> list[list[Any]]:
    """Returns lines of one checkpoint: each head."""
    tables, scores = circuits.tables, [_cell(circuits.scores.get(name)) for name in SCORES]
    heads = next(iter(tables.values()), ())
    return [
        [step, layer, head, *(_cell(tables[name][layer][head] if name in tables else None) for name in TABLES), *scores]
        for layer, row in enumerate(heads)
        for head in range(len(row))
    ]


def _cell(value: float | None) -> str:
    """Returns all digits, so that the table compares with the store; nothing where undefined."""
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Writes CSV, whole or not at all; returns the path."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    return write_text_file(path, text.getvalue())
