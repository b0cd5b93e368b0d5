"""Choice of the sample matrices to store for a probe, and of their precision."""

from collections.abc import Hashable
from enum import StrEnum
from typing import Any

import numpy as np
import xarray as xr
from numcodecs import BitRound
from numpy.typing import NDArray

from stagewise.errors import InputError
from stagewise.influence.split import PARTS

_MATRICES = ("bif", "bif_se", "bif_correlation", "bif_correlation_se")
_PART = "within"

_KEPT_BITS = {"bif": 10, "bif_se": 7}
"""Bits of the float32 mantissa: values to 1 in 2,048; standard errors, known to about a quarter, to 1 in 256."""


class SampleMatrices(StrEnum):
    """Choices of which influence between samples to store; all of it is computed and used at each probe.

    Attributes:
        within: ``bif_within`` and ``bif_within_se`` ``[sample, sample_j]``, nats^2, float32 rounded to 11 and 8 binary
            digits: influence to a relative 5e-4, its error to 4e-3. Sign and zero are preserved, from 1e-38 to 1e38
            nats^2. The between part is -1/4 of the outer product of ``shift`` with itself; drift, total and
            correlations are not kept.
        all: ``bif``, ``bif_se``, ``bif_correlation`` and ``bif_correlation_se`` ``[part, sample, sample_j]`` in
            float64: 128 bytes per pair of samples.
        none: no sample matrix; the rest of a probe is stored as usual.
    """

    within = "within"
    all = "all"
    none = "none"


def to_store(probe: xr.Dataset, kept: SampleMatrices) -> xr.Dataset:
    """Returns a probe in the form to be stored.

    Args:
        probe: data set of one probe, see :func:`stagewise.influence.bif.bif`; not changed.
        kept: choice of sample matrices.
    """
    there = [name for name in _MATRICES if name in probe]
    if kept is SampleMatrices.all or not there:
        return probe
    if kept is SampleMatrices.none:
        return probe.drop_vars(there)
    # Built in one step: xarray copies and aligns a whole data set for each variable added.
    stored: dict[Hashable, Any] = {name: probe.variables[name] for name in probe.data_vars if name not in there}
    for name, bits in _KEPT_BITS.items():
        matrix = probe.variables[name]
        rounded = _rounded(matrix.values[PARTS.index(_PART)], bits)
        stored[_name(name)] = (("sample", "sample_j"), rounded, matrix.attrs | {"significant_bits": bits + 1})
    return xr.Dataset(stored, {name: probe.variables[name] for name in probe.coords}, probe.attrs)


def sample_matrix(run: xr.Dataset, part: str = _PART, *, error: bool = False) -> xr.DataArray:
    """Returns one part of the influence between samples, in whichever form it was stored.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it, or one probe.
        part: ``within``, ``drift``, ``between`` or ``total``.
        error: return the jackknife standard error instead.

    Returns:
        ``[(step,) sample, sample_j]``, nats^2, negative = helpful.

    Raises:
        InputError: an unknown part, or one that was not stored.
    """
    if part not in PARTS:
        raise InputError(f"got part={part!r}; expected one of {', '.join(PARTS)}")
    name = "bif_se" if error else "bif"
    if name in run:
        return run[name].sel(part=part, drop=True)
    if part == _PART and _name(name) in run:
        return run[_name(name)]
    setting = SampleMatrices.within if part == _PART else SampleMatrices.all
    raise InputError(
        f"got a run without the {part} part of the influence between samples; expected it stored; set "
        f"probe.sample_matrices: {setting} and train again"
    )


def _name(matrix: str) -> str:
    return matrix.replace("bif", f"bif_{_PART}")


def _rounded(values: NDArray[np.float64], bits: int) -> NDArray[np.float32]:
    """Rounds to float32 with this number of mantissa bits; keeps values that are not finite."""
    single = values.astype(np.float32)
    short = BitRound(bits).encode(single.copy()).view(np.float32)
    return np.where(np.isfinite(single), short, single)
