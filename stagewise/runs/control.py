"""Effects of a run compared with its loss-free control, in words."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtrit

from stagewise.errors import require

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ControlledPair:
    """Influence of two groups at the probes in equilibrium that have a control.

    An effect is an influence of the probe that differs from zero by Student's t.

    Attributes:
        group: whose weight.
        group_j: whose loss.
        probes: number of probes.
        effects: number of probes with an effect.
        beyond: effects that differ from the control, chain by chain: the landscape contributes to them.
        weaker: those of them that are smaller than the control: the loss damps what gradients give.
        alike: effects that do not differ from a control which itself differs from zero, with the same sign: they
            survive without the loss, and contain nothing about the landscape beyond gradients.
        ratio: control over probe, median over the effects; NaN without one.
    """

    group: str
    group_j: str
    probes: int
    effects: int
    beyond: int
    weaker: int
    alike: int
    ratio: float

    @property
    def undecided(self) -> int:
        """Number of effects that are neither beyond nor alike."""
        return self.effects - self.beyond - self.alike

    @property
    def words(self) -> str:
        """Outcome of most effects of the pair."""
        if not self.effects:
            return "no effect"
        for count, outcome in ((self.beyond, "goes beyond the control"), (self.alike, "survives without the loss")):
            if 2 * count > self.effects:
                return outcome
        return "undecided"


@dataclass(frozen=True)
class ControlFindings:
    """Comparison for all pairs of a run.

    Attributes:
        pairs: each once, without those that have no losses in different samples.
        confidence: of Student's t at one probe.
    """

    pairs: tuple[ControlledPair, ...]
    confidence: float

    def total(self, name: str) -> int:
        """Sums over the pairs of ``probes``, ``effects``, ``beyond``, ``weaker``, ``alike`` or ``undecided``."""
        return sum(getattr(pair, name) for pair in self.pairs)

    def record(self) -> list[dict[str, Any]]:
        """Returns plain data for JSON."""
        return [
            asdict(pair) | {"words": pair.words, "ratio": None if np.isnan(pair.ratio) else pair.ratio}
            for pair in self.pairs
        ]

    def markdown(self) -> str:
        """Returns a paragraph and a table: pairs with effects first, two groups before a group with itself."""
        chance = 100 * (1 - self.confidence)
        intro = (
            "The chains were repeated without the loss (nbeta 0), with the same noise. The remaining influence is "
            "that of the gradients: their dot product over localization, up to second order. **An effect that the "
            "control shows at the same size says nothing about the curvature of the loss landscape.** An effect is an "
            f"influence within the probe alone that differs from zero; it goes beyond where probe and control differ, "
            f"chain by chain, by Student's t at {100 * self.confidence:g} % (by chance alone {chance:.2g} of 100 do; "
            "with common noise these recur at neighbouring probes)."
        )
        header = "| influence | probes | effects | beyond | alike | undecided | control / probe | most |"
        rows = [
            f"| {pair.group} ~ {pair.group_j} | {pair.probes} | {pair.effects} | {pair.beyond} | {pair.alike} | "
            f"{pair.undecided} | {'-' if np.isnan(pair.ratio) else f'{pair.ratio:.2f}'} | {pair.words} |"
            for pair in sorted(
                self.pairs, key=lambda pair: (not pair.effects, pair.group == pair.group_j, -pair.effects)
            )
        ]
        return "\n".join([intro, "", header, "|---|---|---|---|---|---|---|---|", *rows])


def controlled_probes(run: xr.Dataset) -> xr.Dataset | None:
    """Returns the probes of a run that have a control with two chains or more; None if there are none."""
    if "control_group_bif" not in run or "step" not in run.dims:
        return None
    chosen = run.isel(step=(run["control_chains"] >= 2).values)
    return chosen if chosen.sizes["step"] else None


def control_factor(run: xr.Dataset, confidence: float = 0.95) -> Array:
    """Returns the factor from errors to half intervals, ``[step]``, for the chains that probe and control both kept."""
    return np.asarray(stdtrit(run["control_chains"].values - 1, (1 + confidence) / 2), dtype=np.float64)


def group_pairs(run: xr.Dataset) -> Iterator[tuple[str, str]]:
    """Returns pairs of groups, each once."""
    names = [str(name) for name in run["group"].values]
    return ((name, other) for place, name in enumerate(names) for other in names[place:])


def control_findings(run: xr.Dataset, confidence: float = 0.95) -> ControlFindings | None:
    """Compares every effect with its control.

    Probes out of equilibrium are left out; the reference does not matter here.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        confidence: of Student's t, at one probe and for one pair, 0 to 1.

    Returns:
        None if no probe in equilibrium has a control with two chains.

    Raises:
        InputError: ``confidence`` out of range.

    Source: paired t test, Student 1908, on jackknife errors over chains.
    """
    require(0 < confidence < 1, "confidence", confidence, "a probability in (0, 1)", "0.95 is usual")
    chosen = controlled_probes(run)
    if chosen is None:
        return None
    if "equilibrated" in chosen:
        chosen = chosen.isel(step=(chosen["equilibrated"] != 0).values)
    if not chosen.sizes["step"]:
        return None
    factor = control_factor(chosen, confidence)
    pairs = []
    for group, group_j in group_pairs(chosen):
        at = chosen.sel(group=group, group_j=group_j)
        probe, control, difference = (at[f"control_{name}"].values for name in ("probe_bif", "group_bif", "difference"))
        errors = (at[f"control_{name}_se"].values for name in ("probe_bif", "group_bif", "difference"))
        sure, control_sure, differs = (
            np.abs(value) > factor * error for value, error in zip((probe, control, difference), errors, strict=True)
        )
        if np.isnan(probe).all():
            continue
        alike = sure & ~differs & control_sure & (np.sign(probe) == np.sign(control))
        ratio = float(np.median(control[sure] / probe[sure])) if sure.any() else float("nan")
        pair = ControlledPair(
            group,
            group_j,
            probes=int(np.isfinite(probe).sum()),
            effects=int(sure.sum()),
            beyond=int((sure & differs).sum()),
            weaker=int((sure & differs & (np.abs(probe) < np.abs(control))).sum()),
            alike=int(alike.sum()),
            ratio=ratio,
        )
        pairs.append(pair)
    return ControlFindings(tuple(pairs), confidence)
