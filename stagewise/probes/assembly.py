"""Assembly of a probe's data set from its measurement and that of a reference, which may be chosen later."""

import time
from dataclasses import dataclass

import numpy as np
import xarray as xr

from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.split import Centering
from stagewise.phases.between_norm import BetweenNorm, between_norm


@dataclass(frozen=True)
class Measured:
    """Measurement of one probe at its own weights.

    Attributes:
        features: its reduced draws, from which the split is computed.
        own: variables that do not depend on other probes: ``group_loss``, baselines, diagnostics, flags, the trace if
            saved, ``seconds``; settings are attributes.
        usable: False with a severe flag: the probe then has no signal and is not a reference.
    """

    features: GroupDraws
    own: xr.Dataset
    usable: bool

    @property
    def step(self) -> int:
        """Training step."""
        return self.features.step


def assemble(
    measured: Measured,
    reference: GroupDraws | None,
    groups: Groups,
    *,
    positions: Positions | None = None,
    centering: Centering = Centering.pooled,
) -> xr.Dataset:
    """Returns the data set of a probe: influence split against a reference, the signal, and the measurement.

    Args:
        measured: of the probe.
        reference: draws of an earlier usable probe, or None.
        groups: groups in the features.
        positions: bins in the features, or None.
        centering: see :class:`~stagewise.influence.split.Centering`.

    Returns:
        See :func:`stagewise.influence.bif.bif` and :meth:`stagewise.probes.prober.Prober.probe`.
    """
    start = time.perf_counter()
    result = bif(measured.features, reference, groups, positions=positions, centering=centering)
    settled = None if reference is None else reference.equilibrated
    in_equilibrium = measured.features.equilibrated is not False and settled is not False
    signal = BetweenNorm(np.nan, np.nan, np.nan)
    has_reference = result.attrs["reference_step"] != result.attrs["step"]
    if has_reference and measured.usable:
        signal = between_norm(result["shift"].values, result["shift_se"].values, float(result["shift_norm_se"]))
        if not in_equilibrium:
            signal = signal._replace(error=np.nan)
    signals = {"signal": signal.value, "signal_se": signal.error, "signal_threshold": signal.threshold}
    own = measured.own
    # Built at once: xarray copies and aligns the whole data set for each variable that is added.
    parts = {name: result.variables[name] for name in result.data_vars}
    parts |= {name: xr.Variable((), value, {"units": "nats"}) for name, value in signals.items()}
    parts |= {name: own.variables[name] for name in own.data_vars}
    parts["seconds"] = xr.Variable((), own["seconds"].item() + (time.perf_counter() - start))
    coords = {name: data.variables[name] for data in (result, own) for name in data.coords}
    return xr.Dataset(parts, coords, result.attrs | own.attrs)
