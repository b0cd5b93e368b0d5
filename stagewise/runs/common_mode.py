"""Common mode of a run: influence of one sign in almost all pairs, so that the sign says little."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from stagewise.influence.stored_matrices import sample_matrix
from stagewise.runs.equilibrium import settled_probes

ALMOST_ALL = 0.9
"""Least share of pairs with one sign in a common mode."""

_FEWEST_SAMPLES, _FEWEST_GROUPS = 7, 4
"""Fewest samples and groups with enough pairs for a share."""


@dataclass(frozen=True)
class CommonMode:
    """Influence of one sign in almost all pairs.

    Attributes:
        what: the pairs, in words.
        helpful: pairs with negative influence.
        harmful: pairs with positive influence.
        mean: over the pairs, nats^2.
        spread: standard deviation over the pairs, nats^2.
    """

    what: str
    helpful: int
    harmful: int
    mean: float
    spread: float

    def words(self) -> str:
        """Describes the common mode and what to read instead, as Markdown."""
        side = "helpful" if self.helpful > self.harmful else "harmful"
        return (
            f"**Almost all pairs move together: common mode.** {max(self.helpful, self.harmful):,} of "
            f"{self.helpful + self.harmful:,} {self.what} are {side} (mean {self.mean:+.1e} nats², standard deviation "
            f"over pairs {self.spread:.1e}). Some directions in which chains move change nearly all losses at once, so "
            f"that {side} says little about a single pair. Read differences instead: which pairs are far from that "
            "mean, one group against another, and the correlation (`group_bif_correlation`), which does not grow with "
            "the size of the losses."
        )


def common_mode(values: ArrayLike, what: str) -> CommonMode | None:
    """Returns the common mode of pairs; None if fewer than nine in ten have one sign.

    Args:
        values: influence of each pair, nats^2, negative = helpful; NaN and zero do not count.
        what: the pairs, in words.
    """
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[np.isfinite(known) & (known != 0)]
    helpful = int((known < 0).sum())
    harmful = len(known) - helpful
    if not len(known) or max(helpful, harmful) < ALMOST_ALL * len(known):
        return None
    return CommonMode(what, helpful, harmful, float(known.mean()), float(known.std()))


def common_mode_of_samples(probe: xr.Dataset) -> CommonMode | None:
    """Returns the common mode of the pairs of samples at a probe, within phases.

    Args:
        probe: one step of what :func:`stagewise.runs.open.open_run` returns.

    Returns:
        None without sample matrices, or with fewer than seven samples.
    """
    if not {"bif", "bif_within"} & set(probe) or probe.sizes["sample"] < _FEWEST_SAMPLES:
        return None
    return common_mode(_upper(sample_matrix(probe).values), "pairs of samples")


def common_mode_of_groups(run: xr.Dataset) -> CommonMode | None:
    """Returns the common mode of pairs of different groups, within phases, over the probes in equilibrium.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.

    Returns:
        None without group influence or equilibrium, or with fewer than four groups.
    """
    if "group_bif" not in run or run.sizes["group"] < _FEWEST_GROUPS:
        return None
    values = run["group_bif"].sel(part="within").transpose("step", "group", "group_j").values[settled_probes(run)]
    return common_mode(_upper(values), "influences between two groups (at all probes in equilibrium)")


def _upper(values: np.ndarray) -> np.ndarray:
    rows, columns = np.triu_indices(values.shape[-1], k=1)
    return values[..., rows, columns]
