"""Token-by-token BIF, whole or in blocks that fit in memory."""

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr

from stagewise.errors import InputError
from stagewise.influence.sign import SIGN, UNITS
from stagewise.influence.split import Centering, Floats, centering_means

_AXES = ("sample", "token", "sample_j", "token_j")


def token_bif(loss: Floats, *, centering: Centering = Centering.chain, correlate: bool = False) -> xr.DataArray:
    """Computes the BIF between all pairs of losses, including pairs within one sample.

    This is one matrix product, in the float type of the losses. Float32 costs half of float64 and loses nothing present
    in a float32 trace: losses are centred before they are multiplied, which is exact if a loss moves by less than half
    of itself, and means are rounded to seven digits of the movement, not of the loss.

    Args:
        loss: ``[chain, draw, sample, token]`` or ``[chain, draw, sample]``, nats, zero where masked.
        centering: means to subtract, see :class:`~stagewise.influence.split.Centering`.
        correlate: divide by the standard deviations of both sides.

    Returns:
        ``[sample, token, sample_j, token_j]`` or ``[sample, sample_j]``: minus the covariance (1/N moments), nats^2,
        negative = helpful; or minus the correlation, a pure number. Zero where a loss is masked or does not move.

    Raises:
        InputError: losses of another shape or type, or not finite.

    Source: BIF, arXiv 2509.26544.
    """
    whole = next(token_bif_blocks(loss, centering=centering, correlate=correlate))[1]
    axes = _AXES if loss.ndim == 4 else _AXES[::2]
    return xr.DataArray(
        whole, dims=axes, attrs={"sign": SIGN, "units": "1" if correlate else UNITS, "centering": str(centering)}
    )


def token_bif_blocks(
    loss: Floats, *, centering: Centering = Centering.chain, correlate: bool = False, chunk_size: int | None = None
) -> Iterator[tuple[slice, Floats]]:
    """Yields the rows of :func:`token_bif`, some samples at a time.

    Memory is one copy of the losses and one block.

    Args:
        loss: as in :func:`token_bif`.
        centering: as in :func:`token_bif`.
        correlate: as in :func:`token_bif`.
        chunk_size: samples per block; all of them if None.

    Returns:
        Iterator over pairs: slice of samples, and their rows ``[chunk, token, sample_j, token_j]`` or
        ``[chunk, sample_j]``.

    Raises:
        InputError: losses of another shape or type, or not finite, or ``chunk_size`` below 1.
    """
    if loss.ndim not in (3, 4) or loss.dtype not in (np.float32, np.float64):
        raise InputError(
            f"got losses of shape {list(loss.shape)} and type {loss.dtype}; expected float32 or float64 "
            "[chain, draw, sample] or [chain, draw, sample, token]; pass the `loss` of a trace or of a probe"
        )
    if chunk_size is not None and chunk_size < 1:
        raise InputError(f"got chunk_size={chunk_size}; expected at least 1 sample, or None for all")
    # Relative to the first draw, which is exact, so that means are rounded to the size of the movement.
    centred = loss - loss[:1, :1]
    centred -= centering_means(centred, centering)
    if not np.isfinite(centred.sum()):
        raise InputError("got losses that are not finite; expected finite nats; drop the chains that diverged")
    draws = torch.from_numpy(centred.reshape(loss.shape[0] * loss.shape[1], -1))
    if correlate:
        deviation = torch.linalg.vector_norm(draws, dim=0) / len(draws) ** 0.5
        draws /= torch.where(deviation > 0, deviation, 1.0)
    return _blocks(draws, loss.shape[2:], chunk_size or loss.shape[2])


def _blocks(draws: torch.Tensor, observed: tuple[int, ...], chunk_size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields minus the mean product of ``[draw, sample * token]`` between some samples at a time and all."""
    left = (draws / -len(draws)).T
    size = observed[0]
    tokens = len(left) // size
    for start in range(0, size, chunk_size):
        rows = slice(start, min(start + chunk_size, size))
        block = left[rows.start * tokens : rows.stop * tokens] @ draws
        yield rows, block.numpy().reshape(rows.stop - rows.start, *observed[1:], *observed)
