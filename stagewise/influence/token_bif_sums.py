"""Token-by-token BIF of chosen sequences from running sums, with errors over chains and without a trace."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from stagewise.checks.bounds import check_arguments
from stagewise.errors import InputError, require
from stagewise.influence.sign import SIGN, UNITS
from stagewise.influence.uncertainty import jackknife_error

Array = NDArray[np.float64]

TOKEN_PARTS = ("within", "drift", "total")
"""Parts of one probe's own draws, in order; the first two add up to the third."""

_NAMES = ("token_bif", "token_bif_correlation")
_AXES = ("token_part", "chosen", "token", "chosen_j", "token_j")
_DRAWS_AT_ONCE = 16
_ROWS_AT_ONCE = 128


class _ChainSums:
    """Sums of the changes in one chain's losses since its first draw, and of products of these changes."""

    def __init__(self, first: Tensor) -> None:
        size = len(first)
        self.start = first.clone()
        self.count = 0
        self._sum = torch.zeros(size, dtype=torch.float64)
        self._products = torch.zeros(size, size, dtype=torch.float64)
        self._waiting = torch.empty(_DRAWS_AT_ONCE, size, dtype=torch.float64)

    def add(self, losses: Tensor) -> None:
        row = self.count % _DRAWS_AT_ONCE
        torch.sub(losses, self.start, out=self._waiting[row])
        self.count += 1
        if row == _DRAWS_AT_ONCE - 1:
            self._take_in(_DRAWS_AT_ONCE)

    def _take_in(self, num: int) -> None:
        """Adds pending draws in one product, so that the sums pass through memory once."""
        block = self._waiting[:num]
        self._sum += block.sum(dim=0)
        self._products.addmm_(block.T, block)

    def sums(self) -> tuple[Array, Array, Array]:
        """Returns the first draw ``[loss]``, the sum of changes ``[loss]`` and of their products ``[loss, loss]``.

        The arrays are not copied.
        """
        left = self.count % _DRAWS_AT_ONCE
        if left:
            # Added now; zeroed so that they are not added again.
            self._take_in(left)
            self._waiting[:left] = 0
        return self.start.numpy(), self._sum.numpy(), self._products.numpy()


class TokenSums:
    """Running sums over the losses of chosen sequences, updated draw by draw from several chains in any order.

    Pass an instance to the chains as ``on_draw``. Memory is 8 bytes per chain and pair of losses, 8 * chains *
    (sequences * tokens)^2, whatever the number of draws, and 48 bytes per pair in the result of :meth:`influence`: .02
    GiB for one sequence of 512 tokens over 4 chains, 1.2 GiB for eight.

    Sums are float64, of changes in a loss since the first draw of its chain, so that their rounding is far below the
    float32 precision of the losses. A chain whose losses are not finite does not affect others.
    """

    def __init__(self, samples: Sequence[int] | None = None) -> None:
        """Starts without draws.

        Args:
            samples: rows of each draw to use, in this order; all if None.

        Raises:
            InputError: no row, a negative row, or a duplicate.
        """
        check_arguments("TokenSums", TokenSums.__init__, locals())
        self._samples = None if samples is None else [int(sample) for sample in samples]
        if self._samples is not None:
            good = len(self._samples) > 0 and len(set(self._samples)) == len(self._samples) and min(self._samples) >= 0
            require(good, "samples", self._samples, "at least one position >= 0, each once", "name each sequence once")
        self._shape: tuple[int, int] | None = None
        self._chains: dict[int, _ChainSums] = {}

    def __call__(self, chain: int, losses: Tensor) -> None:
        """Adds one draw.

        Args:
            chain: number of the chain.
            losses: ``[sample, token]``, nats, zero where masked; on any device.

        Raises:
            InputError: losses of another shape than those before, without tokens, or without a chosen sample.
        """
        if losses.dim() != 2 or (self._samples is not None and max(self._samples) >= len(losses)):
            raise InputError(
                f"got losses of shape {list(losses.shape)} for samples {self._samples}; expected [sample, token] with "
                "these samples in it; choose others, or use the BIF of samples where there are no tokens"
            )
        chosen = losses.detach() if self._samples is None else losses.detach()[self._samples]
        shape = (len(chosen), chosen.shape[1])
        if self._shape is None:
            self._shape = shape
        if shape != self._shape:
            raise InputError(f"got losses of shape {list(shape)}; expected {list(self._shape)}, as those before")
        flat = chosen.flatten().cpu().double()
        if chain not in self._chains:
            self._chains[chain] = _ChainSums(flat)
        self._chains[chain].add(flat)

    def merge(self, others: "Sequence[TokenSums]") -> None:
        """Adds the chains of other sums over the same rows.

        Args:
            others: sums over other chains; may include this object.

        Raises:
            InputError: other rows, or losses of another shape.
        """
        for other in others:
            if other is self or not other._chains:
                continue
            same = other._samples == self._samples and self._shape in (None, other._shape)
            if not same:
                raise InputError(
                    f"got sums of samples {other._samples}, shape {other._shape}; expected {self._samples}, "
                    f"{self._shape}; add the same losses to each"
                )
            self._shape = other._shape
            self._chains.update(other._chains)

    def influence(self, chains: Sequence[int] | None = None) -> xr.Dataset:
        """Computes the BIF between all pairs of the chosen losses, including pairs within one sequence.

        Args:
            chains: numbers of the chains to use, e.g. those kept by a trace; all if None.

        Returns:
            Data set with axes ``token_part`` (within, drift, total), ``chosen``, ``token``, ``chosen_j``, ``token_j``,
            float32; ``chosen`` holds the positions of the samples. Negative = helpful:

            - ``token_bif``: minus the covariance (1/N moments), nats^2. *within* is around the mean of each chain,
              *drift* the part that this centring removes, *total* their sum: the covariance of all draws.
            - ``token_bif_correlation``: every part divided by the total standard deviations, a pure number.
            - ``token_bif_se``, ``token_bif_correlation_se``: jackknife standard errors over chains; NaN with one chain.

            Zero where a loss is masked or never moves.

        Raises:
            InputError: no draw, a chain without draws, chains of different lengths, or losses that are not finite.

        Source: BIF, arXiv 2509.26544; law of total covariance; jackknife, Quenouille 1956, Tukey 1958.
        """
        numbers = sorted(self._chains) if chains is None else list(chains)
        lengths = {self._chains[number].count if number in self._chains else 0 for number in numbers}
        if self._shape is None or len(lengths) != 1 or 0 in lengths:
            raise InputError(
                f"got {sorted(lengths)} draws from chains {numbers}; expected the same number from each, at least one; "
                "name the chains that were kept"
            )
        (draws,) = lengths
        starts, sums, products = zip(*(self._chains[number].sums() for number in numbers), strict=True)
        moved = np.stack(sums) / draws
        # Relative to the first chain's start: a loss that never moves has exactly the same mean in all chains.
        means = np.stack(starts) - starts[0] + moved
        # Rounding may make the variance of a loss that hardly moves negative.
        own = np.maximum(np.stack([np.diagonal(product) for product in products]) / draws - moved**2, 0.0)
        if not (np.isfinite(own).all() and np.isfinite(means).all()):
            raise InputError("got losses that are not finite; expected finite nats; leave out the chains that diverged")
        size = means.shape[1]
        found = {name + error: np.empty((3, size, size), np.float32) for error in ("", "_se") for name in _NAMES}
        for start in range(0, size, _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            within = np.stack([product[rows] for product in products]) / draws - moved[:, rows, None] * moved[:, None]
            estimate = partial(_parts, rows, within, own, means)
            value = estimate(list(range(len(numbers))))
            error = jackknife_error(estimate, len(numbers))
            for index, name in enumerate(_NAMES):
                found[name][:, rows] = value[index]
                found[f"{name}_se"][:, rows] = np.nan if error is None else error[index]
        return self._dataset(found)

    def _dataset(self, found: dict[str, NDArray[np.float32]]) -> xr.Dataset:
        assert self._shape is not None
        chosen = list(range(self._shape[0])) if self._samples is None else self._samples
        result = xr.Dataset(
            {name: (_AXES, value.reshape(3, *self._shape, *self._shape)) for name, value in found.items()},
            coords={
                "token_part": ("token_part", np.array(TOKEN_PARTS, dtype=object)),
                "chosen": ("chosen", chosen),
                "chosen_j": ("chosen_j", chosen),
            },
            attrs={"sign": SIGN, "units": UNITS, "centering": "chain"},
        )
        for name in found:
            result[name].attrs = {"sign": SIGN, "units": "1" if "correlation" in name else UNITS}
        return result


def _parts(rows: slice, within: Array, own: Array, means: Array, kept: list[int]) -> Array:
    """Returns BIF and its correlation ``[2, part, row, loss]`` over the chains kept.

    Args:
        rows: losses to compute.
        within: ``[chain, row, loss]``, covariance within each chain, nats^2.
        own: ``[chain, loss]``, variance within each chain, nats^2.
        means: ``[chain, loss]``, from an origin common to all chains, nats.
        kept: positions of chains.
    """
    offsets = means[kept] - means[kept].mean(axis=0)
    variance = own[kept].mean(axis=0) + (offsets**2).mean(axis=0)
    scale = np.zeros_like(variance)
    np.divide(1.0, np.sqrt(variance), out=scale, where=variance > 0)
    fluctuation = within[kept].mean(axis=0)
    drift = offsets[:, rows].T @ offsets / len(kept)
    influence = -np.stack([fluctuation, drift, fluctuation + drift])
    return np.stack([influence, influence * scale[rows, None] * scale])
