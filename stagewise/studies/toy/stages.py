"""Stages of one seed: sign flips of influence, detected windows, and separation of branches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.phases.flips import SignFlip, find_flips
from stagewise.phases.matching import WindowMatch, match_windows
from stagewise.phases.offline import find_windows
from stagewise.phases.window import Window
from stagewise.studies.toy.agreement import NEGLIGIBLE, SURE, off_diagonal
from stagewise.toy.hierarchy import Hierarchy

Array = NDArray[np.float64]

CHAINS = "SGLD chains"
METHODS = {
    CHAINS: "bif",
    "local Gaussian": "gaussian",
    "horizon": "horizon_effect",
    "unrolled": "unrolled",
    "full leave-one-out": "leave_one_out",
}
"""Methods by their names in tables, and the names of their curves."""


def method_curves(
    chains: xr.Dataset, exact: xr.Dataset, method: str, *, horizon: int
) -> tuple[Array, Array, Array, float | None]:
    """Returns steps ``[step]``, influence and its errors ``[step, item, item_j]``, and the errors' degrees of freedom.

    A method without sampling error gets one that makes values below
    :data:`~stagewise.studies.toy.agreement.NEGLIGIBLE` of the largest unsure.
    """
    if method == CHAINS:
        return (
            chains["step"].values,
            chains["bif"].values,
            chains["bif_se"].values,
            chains.attrs["num_chains"] - 1,
        )
    curve = exact[METHODS[method]]
    if "horizon" in curve.dims:
        curve = curve.sel(horizon=horizon)
    steps = exact["gaussian_step" if method == "local Gaussian" else "step"].values
    pairs = np.broadcast_to(off_diagonal(curve.shape[-1]), curve.shape)
    error = NEGLIGIBLE * np.abs(curve.values[pairs]).max() / SURE
    return steps, curve.values, np.full(curve.shape, error), None


@dataclass(frozen=True)
class PairFlips:
    """Sign flips of one pair by one method.

    Attributes:
        method: one of :data:`METHODS`.
        item: whose weight changes.
        item_j: whose loss responds.
        relation: of the two.
        flips: in order of training.
    """

    method: str
    item: str
    item_j: str
    relation: str
    flips: tuple[SignFlip, ...]

    @property
    def from_helpful(self) -> SignFlip | None:
        """First flip from helpful to harmful, the one in the paper's figure."""
        return next((flip for flip in self.flips if flip.before < 0), None)


def pair_flips(chains: xr.Dataset, exact: xr.Dataset, hierarchy: Hierarchy, *, horizon: int) -> list[PairFlips]:
    """Returns flips of each unordered pair of items by each method.

    Influence from chains is symmetric. The other methods are only nearly so; the first item is the one whose weight
    changes.
    """
    found = []
    for method in METHODS:
        steps, values, errors, degrees = method_curves(chains, exact, method, horizon=horizon)
        for row, column, relation in hierarchy.pairs():
            flips = find_flips(steps, values[:, row, column], errors[:, row, column], min_z=SURE, degrees=degrees)
            found.append(PairFlips(method, hierarchy.items[row], hierarchy.items[column], relation, tuple(flips)))
    return found


def relation_flips(chains: xr.Dataset) -> dict[str, tuple[SignFlip, ...]]:
    """Returns flips of the mean influence over the pairs of each relation, from chains."""
    degrees = chains.attrs["num_chains"] - 1
    return {
        str(relation): tuple(
            find_flips(
                chains["step"].values,
                chains["relation_bif"].sel(relation=relation).values,
                chains["relation_bif_se"].sel(relation=relation).values,
                min_z=SURE,
                degrees=degrees,
            )
        )
        for relation in chains["relation"].values
    }


@dataclass(frozen=True)
class Detection:
    """True transitions that one signal finds.

    Attributes:
        signal: its name in tables.
        windows: windows found.
        match: with the steps at which the stages' losses fall fastest.
        half_time_match: with the steps at which the closed form has the stages half learned.
    """

    signal: str
    windows: tuple[Window, ...]
    match: WindowMatch
    half_time_match: WindowMatch


BETWEEN, LOSSES, NORM = "between", "losses alone", "norm of the BIF"


def signals(chains: xr.Dataset, exact: xr.Dataset) -> dict[str, Array]:
    """Returns the signals by name, each ``[step]``; the first two are NaN without a reference.

    - ``between``: the callback's own, square root of the between-norm, nats.
    - ``losses alone``: the same from the losses at the training weights, without chains, nats.
    - ``norm of the BIF``: off the diagonal, nats^2.
    """
    steps, reference = chains["step"].values, chains["reference_step"].values
    loss = exact["loss"].values
    shift = loss[steps] - loss[reference]
    baseline = np.where(reference < steps, np.linalg.norm(shift, axis=1) / 2, np.nan)
    bif = chains["bif"].values
    norm = np.array([np.linalg.norm(probe[off_diagonal(len(probe))]) for probe in bif])
    return {BETWEEN: chains["signal"].values, LOSSES: baseline, NORM: norm}


def detections(chains: xr.Dataset, exact: xr.Dataset, *, min_prominence: float) -> list[Detection]:
    """Returns windows of each signal, matched with the stages of learning.

    Differences of losses measure nearly the fastest fall of a loss, so that match only checks consistency. The
    half-times of the closed form depend on the run only through its initial weights.
    """
    steps = chains["step"].values
    found = []
    for name, values in signals(chains, exact).items():
        known = np.isfinite(values)
        errors = chains["signal_se"].values[known] if name == BETWEEN else None
        windows = find_windows(steps[known], values[known], errors, min_prominence=min_prominence)
        matches = [match_windows(windows, exact.attrs[truth]) for truth in ("transitions", "half_times")]
        found.append(Detection(name, tuple(windows), *matches))
    return found


@dataclass(frozen=True)
class BranchPeak:
    """Times at which a branch separates, and at which its sides harm each other most.

    Attributes:
        branch: name of the node.
        branching_step: at which its children are half of their way apart in the hidden representation.
        peak_step: of the largest (most harmful) mean influence between items of different children; None if it is never
            surely above zero.
    """

    branch: str
    branching_step: float
    peak_step: int | None

    @property
    def ratio(self) -> float:
        """Peak over branching step; below 1 the harm comes first. NaN without a peak."""
        return math.nan if self.peak_step is None else self.peak_step / self.branching_step


def _across(children: Sequence[Sequence[int]], size: int) -> NDArray[np.bool_]:
    side = np.full(size, -1)
    for number, items in enumerate(children):
        side[list(items)] = number
    return (side[:, None] >= 0) & (side[None] >= 0) & (side[:, None] != side[None])


def branch_peaks(chains: xr.Dataset, exact: xr.Dataset, hierarchy: Hierarchy) -> list[BranchPeak]:
    """Returns branching times of the hidden representation and the peaks of influence across each branch."""
    steps, bif, errors = (chains[name].values for name in ("step", "bif", "bif_se"))
    found = []
    for branch in hierarchy.branches():
        pairs = _across(branch.children, len(hierarchy.items))
        mean = bif[:, pairs].mean(axis=1)
        top = int(np.argmax(mean))
        # An upper bound: assumes full correlation of the errors of the pairs of one probe.
        sure = mean[top] > SURE * errors[top][pairs].mean()
        found.append(
            BranchPeak(branch.name, exact.attrs["branching_times"][branch.name], int(steps[top]) if sure else None)
        )
    return found
