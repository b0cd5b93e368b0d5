"""Long tables of a sweep, one row for each number."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import xarray as xr

from stagewise.files.writing import write_text_file
from stagewise.influence.chain_counts import chain_counts, equilibrated_probes
from stagewise.influence.llc import readable_share
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
and ``llc_localized_share`` the share of the latter due to the localization; they are the same in all rows of a step, a
component and a group. Undefined values are empty; so is ``z`` if ``equilibrated`` is 0: the chains of the checkpoint or
of its reference are then out of equilibrium. ``num_chains`` counts the chains common to both. ``reference_step`` is the
step itself without a reference."""

CIRCUIT_COLUMNS = ("step", "layer", "head", *TABLES, *SCORES)
"""Scores of heads, 0 to 1, copying -1 to 1; then scores of the whole model, nats per token, the same in all rows of a
step."""

_VALUES = {
    "group_bif": "bif",
    "group_bif_se": "se",
    "group_bif_z": "z",
    "group_bif_correlation": "correlation",
}
_COEFFICIENTS = {"llc_all": "llc", "llc_all_se": "llc_se", "llc_localized_share": "llc_localized_share"}


def group_rows(probe: xr.Dataset, component: str, *, num_draws: int) -> pd.DataFrame:
    """Returns the rows of one checkpoint: each part of each ordered pair of groups.

    Args:
        probe: its data set.
        component: component of the chains.
        num_draws: of each chain.
    """
    values = probe[list(_VALUES)].rename(_VALUES).reset_coords(drop=True)
    table = values.to_dataframe(dim_order=["part", "group", "group_j"]).reset_index()
    names = table["group"].to_numpy()
    own = {name: probe[f"group_{name}"].sel(group=names).values for name in ("llc", "llc_se") if name in probe}
    of_all = {column: float(probe[name]) for column, name in _COEFFICIENTS.items() if name in probe}
    if "llc_localized_share" in of_all:
        of_all["llc_localized_share"] = float(readable_share(of_all["llc_localized_share"]))
    return table.assign(
        step=int(probe.attrs["step"]),
        component=component,
        **own,
        **of_all,
        num_chains=int(chain_counts(probe)),
        num_draws=num_draws,
        reference_step=int(probe.attrs["reference_step"]),
        equilibrated=int(equilibrated_probes(probe)),
        flags=" ".join(probe.attrs["flags"]),
    ).reindex(columns=GROUP_COLUMNS)


def circuit_rows(step: int, circuits: Circuits) -> pd.DataFrame:
    """Returns the rows of one checkpoint: each head."""
    tables, scores = circuits.tables, [circuits.scores.get(name) for name in SCORES]
    heads = next(iter(tables.values()), ())
    rows = [
        [step, layer, head, *(tables[name][layer][head] if name in tables else None for name in TABLES), *scores]
        for layer, row in enumerate(heads)
        for head in range(len(row))
    ]
    return pd.DataFrame(rows, columns=CIRCUIT_COLUMNS)


def write_table(path: Path, columns: Sequence[str], tables: Sequence[pd.DataFrame]) -> Path:
    """Concatenates tables and writes them as CSV, atomically; returns the path.

    Numbers have all their digits, for comparison with the store; those that are not finite are empty.
    """
    table = pd.concat(tables) if tables else pd.DataFrame(columns=columns)
    return write_text_file(
        path, table.replace([math.inf, -math.inf], math.nan).to_csv(index=False, lineterminator="\n")
    )
