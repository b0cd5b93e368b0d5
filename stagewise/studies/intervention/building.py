"""The data of a cell from their description in YAML."""

from typing import Any

from stagewise.jobs.building import build
from stagewise.lm.data import SequenceData


def build_data(description: dict[str, Any], *, seed: int, num_observed: int | None = None) -> SequenceData:
    """The data module of a cell.

    Args:
        description: as in YAML.
        seed: of the cell, in place of that in the description.
        num_observed: observed sequences of each kind; those of the description if None.

    Raises:
        InputError: it cannot be built.
    """
    changed = {"seed": seed} if num_observed is None else {"seed": seed, "num_observed": num_observed}
    return build(SequenceData, description, "data", **changed)
