"""Influence of groups on each other at one probe, the input of policies."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.errors import InputError
from stagewise.interventions.check_weights import check_names


@dataclass(frozen=True, eq=False)
class InfluenceTable:
    """Group influence at one probe.

    Attributes:
        names: the groups.
        values: ``[group, group]``, -Cov, nats^2, negative = helpful; symmetric. NaN where two groups have no pair.
        step: training step of the probe.

    Raises:
        InputError: the shape does not fit the names.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    step: int

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names), len(self.names)):
            raise InputError(
                f"got influence of shape {list(self.values.shape)} for {len(self.names)} groups; expected one row and "
                "one column for each"
            )

    @classmethod
    def from_probe(cls, probe: xr.Dataset, *, part: str = "total") -> "InfluenceTable":
        """Reads ``group_bif`` of one probe.

        Args:
            probe: as written by the callback; for an earlier run, ``open_run(path).sel(step=k)``.
            part: ``within``, ``drift``, ``between`` or ``total``.

        Raises:
            InputError: several probes, no group influence, or no such part.
        """
        if "group_bif" not in probe or "step" in probe.dims:
            raise InputError(
                "got a data set that is not one probe with group_bif; expected one; take one, e.g. run.sel(step=100)"
            )
        if part not in probe["part"].values:
            raise InputError(f"got part={part!r}; expected one of {', '.join(map(str, probe['part'].values))}")
        table = probe["group_bif"].sel(part=part).transpose("group", "group_j")
        step = probe.coords["step"] if "step" in probe.coords else probe.attrs["step"]
        return cls(names=tuple(map(str, table["group"].values)), values=table.values.astype(np.float64), step=int(step))

    def on(self, target: str) -> dict[str, float]:
        """Returns the influence of each group on ``target``, nats^2, negative = helpful; NaN where unknown.

        Raises:
            InputError: no such group.
        """
        check_names([target], self.names)
        column = self.values[:, self.names.index(target)]
        return dict(zip(self.names, column.tolist(), strict=True))
