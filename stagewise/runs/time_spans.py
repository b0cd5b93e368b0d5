"""Influence of groups over a few spans of training: which groups matter when, and what changes between spans."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtrit

from stagewise.errors import InputError, require
from stagewise.runs.curves import flip_degrees, pairs_to_read, refuse_unknown_groups, usable_probes
from stagewise.runs.run_windows import run_windows

MOST_PAIRS = 12
_MOST_WINDOWS, _NUM_SPANS = 3, 3
_MOST_TOLD = 5


@dataclass(frozen=True)
class Span:
    """Consecutive probes in equilibrium.

    Attributes:
        first: training step of the first probe.
        last: training step of the last probe.
        places: positions of the probes in the run.
    """

    first: int
    last: int
    places: tuple[int, ...]

    @property
    def words(self) -> str:
        """The steps."""
        return f"step {self.first:,}" if self.first == self.last else f"steps {self.first:,} to {self.last:,}"


@dataclass(frozen=True)
class SpanMean:
    """Mean influence of a pair over the probes of a span.

    Attributes:
        value: nats^2, negative = helpful; NaN if unknown.
        half: half of its confidence interval, nats^2; NaN if unknown.
    """

    value: float
    half: float

    @property
    def side(self) -> str:
        """``helpful``, ``harmful``, or ``unresolved`` if the interval holds zero or is unknown."""
        if not abs(self.value) > self.half:
            return "unresolved"
        return "helpful" if self.value < 0 else "harmful"


@dataclass(frozen=True)
class SpanChange:
    """Significant difference between the means of a pair over two spans.

    Attributes:
        earlier: position of the earlier span.
        later: position of the later span.
        value: later less earlier, nats^2.
        half: half of its interval, for all pairs and spans together, nats^2.
    """

    earlier: int
    later: int
    value: float
    half: float


@dataclass(frozen=True)
class PairOverSpans:
    """Influence between two groups in each span.

    Attributes:
        group: whose weight.
        group_j: whose loss.
        means: one for each span.
        change: the most significant one between two spans; None if there is none.
    """

    group: str
    group_j: str
    means: tuple[SpanMean, ...]
    change: SpanChange | None


@dataclass(frozen=True)
class SpanInfluence:
    """Groups over spans of training.

    Attributes:
        spans: in order; empty if no probe in equilibrium has two chains.
        pairs: in the order given, or those to read first.
        confidence: of each interval, and of all changes together.
        windows: True if windows bound the spans.
    """

    spans: tuple[Span, ...]
    pairs: tuple[PairOverSpans, ...]
    confidence: float
    windows: bool

    def words(self) -> str:
        """Describes who helps or harms whom, when, and what changes, in one or two sentences."""
        if not self.spans:
            return (
                "Not known: no probe in equilibrium has two chains or more. Raise `sgld.num_chains`, and check the "
                "flags."
            )
        sure = [(pair, when) for pair in self.pairs if (when := self._when(pair))]
        parts = [f"{_does(pair, side)} {when}" for pair, (side, when) in sure[:_MOST_TOLD]]
        text = "; ".join(parts) or "No pair is surely helpful or harmful in any span"
        if len(sure) > _MOST_TOLD:
            more = len(sure) - _MOST_TOLD
            text += f"; {more} more {'pair is' if more == 1 else 'pairs are'} in the table"
        return f"{text}. {self._changes()}"

    def _when(self, pair: PairOverSpans) -> tuple[str, str] | None:
        """Returns side and steps of the spans with a sign; None without one, or with both, as in a change."""
        known = [place for place, mean in enumerate(pair.means) if mean.side != "unresolved"]
        sides = {pair.means[place].side for place in known}
        if len(sides) != 1:
            return None
        first, last, end = known[0], known[-1], len(self.spans) - 1
        (side,) = sides
        if last - first + 1 > len(known):
            return side, "in " + " and ".join(self.spans[place].words for place in known)
        if last == end:
            return side, f"from step {self.spans[first].first:,} on"
        if first == 0:
            return side, f"up to step {self.spans[last].last:,}"
        return side, f"from step {self.spans[first].first:,} to {self.spans[last].last:,}"

    def _changes(self) -> str:
        if len(self.spans) < 2:
            return "There is one span only: changes over time are not known."
        found = [(pair, pair.change) for pair in self.pairs if pair.change is not None]
        if not found:
            first, last = self.spans[0].first, self.spans[-1].last
            return (
                f"From step {first:,} to {last:,} no pair's mean differs between spans beyond the interval for all "
                "pairs together. Single probes, as around the rise of a score, are compared without this correction, "
                "and may differ."
            )
        parts = []
        for pair, change in found[:_MOST_TOLD]:
            before, after = pair.means[change.earlier], pair.means[change.later]
            where = f"{self.spans[change.earlier].words} to {self.spans[change.later].words}"
            parts.append(f"{_name(pair)} ({before.value:+.1e} → {after.value:+.1e} nats², {where})")
        more = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
        rest = "" if len(found) == len(self.pairs) else "; the others do not, beyond their intervals"
        verb = "Changes" if len(found) == 1 else "Change"
        return f"{verb} over time: {', '.join(parts)}{more}{rest}."


def _name(pair: PairOverSpans) -> str:
    return pair.group if pair.group == pair.group_j else f"{pair.group} ~ {pair.group_j}"


def _does(pair: PairOverSpans, side: str) -> str:
    verb = "help" if side == "helpful" else "harm"
    if pair.group == pair.group_j:
        return f"{pair.group} {verb}s itself"
    return f"{pair.group} and {pair.group_j} {verb} each other"


def training_spans(run: xr.Dataset) -> tuple[tuple[Span, ...], bool]:
    """Splits the probes in equilibrium with two chains or more into spans of training.

    One window with its peak in equilibrium: before, in and after it. Two or three: from peak to peak; of more, the
    three with the largest signal count. Without windows: thirds with equally many probes. A span has one probe or more.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.

    Returns:
        The spans, in order, and True if windows bound them.
    """
    steps, usable = run["step"].values, usable_probes(run)
    places = np.flatnonzero(usable)
    good = set(steps[usable].tolist())
    windows = sorted(
        (run_window for run_window in run_windows(run) if run_window["peak"] in good), key=lambda item: -item["value"]
    )[:_MOST_WINDOWS]
    at = steps[places]
    if len(windows) == 1:
        # Probes at the ends of the window are in it.
        cuts = [np.searchsorted(at, windows[0]["start"]), np.searchsorted(at, windows[0]["end"], side="right")]
    else:
        cuts = [np.searchsorted(at, window["peak"]) for window in sorted(windows, key=lambda item: item["peak"])]
    parts = [part for part in np.split(places, cuts) if len(part)]
    by_windows = len(parts) > 1
    if not by_windows:
        parts = [part for part in np.array_split(places, _NUM_SPANS) if len(part)]
    return tuple(Span(int(steps[item[0]]), int(steps[item[-1]]), tuple(item.tolist())) for item in parts), by_windows


def influence_by_span(
    run: xr.Dataset,
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    confidence: float = 0.95,
) -> SpanInfluence:
    """Averages the influence within phases over spans of training, and compares the spans.

    The standard error of a mean over probes is the mean of their jackknife errors. This is its upper bound, reached if
    the errors are fully correlated: probes share random numbers and reference chains. The error of a difference is the
    root of the sum of both squares, an upper bound for errors that are not negatively correlated. Degrees of freedom
    are one less than the chains of the probe with the fewest. Intervals of means are for each alone; a change is
    significant beyond the interval for all pairs and couples of spans together (Bonferroni).

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with group influence.
        pairs: of groups; if None, the twelve to read first: sure ones (helpful or harmful in some span) before the
            others, two groups before a group with itself, then by the largest mean.
        confidence: of the intervals, 0 to 1.

    Returns:
        The spans of :func:`training_spans` and the pairs.

    Raises:
        InputError: no group influence, an unknown group, or ``confidence`` out of range.

    Source: Student 1908; Bonferroni 1936.
    """
    require(0 < confidence < 1, "confidence", confidence, "a probability in (0, 1)", "0.95 is usual")
    if not {"group_bif", "group_bif_se"} <= set(run) or "step" not in run.dims:
        raise InputError("got a data set that is not a run with group_bif; expected what open_run returns")
    chosen = pairs_to_read(run) if pairs is None else list(pairs)
    refuse_unknown_groups(run, (name for pair in chosen for name in pair))
    spans, by_windows = training_spans(run)
    degrees = flip_degrees(run)
    if degrees is None:
        return SpanInfluence((), (), confidence, False)
    couples = list(combinations(range(len(spans)), 2))
    factor = float(stdtrit(degrees, (1 + confidence) / 2))
    found = []
    for group, group_j in chosen:
        curve = run[["group_bif", "group_bif_se"]].sel(part="within", group=group, group_j=group_j)
        moments = [_mean(curve["group_bif"].values, curve["group_bif_se"].values, span) for span in spans]
        found.append((group, group_j, moments, tuple(SpanMean(value, factor * error) for value, error in moments)))
    if pairs is None:
        found = sorted(found, key=lambda entry: _order(entry[0] == entry[1], entry[3]))[:MOST_PAIRS]
    strict = float(stdtrit(degrees, 1 - (1 - confidence) / (2 * max(1, len(couples) * len(found)))))
    compared = (
        PairOverSpans(group, group_j, means, _change(moments, couples, strict))
        for group, group_j, moments, means in found
    )
    return SpanInfluence(spans, tuple(compared), confidence, by_windows)


def _order(alone: bool, means: Sequence[SpanMean]) -> tuple[bool, bool, float]:
    """Sorts sure pairs first, then two groups before one with itself, then by the largest mean (of the sure ones)."""
    sure = [abs(mean.value) for mean in means if mean.side != "unresolved"]
    known = [abs(mean.value) for mean in means if np.isfinite(mean.value)]
    return not sure, alone, -max(sure or known, default=0.0)


def _mean(values: NDArray[np.float64], errors: NDArray[np.float64], span: Span) -> tuple[float, float]:
    """Returns the mean and its standard error over the probes of a span where both are known."""
    value, error = values[list(span.places)], errors[list(span.places)]
    known = np.isfinite(value) & np.isfinite(error)
    if not known.any():
        return float("nan"), float("nan")
    return float(value[known].mean()), float(error[known].mean())


def _change(
    moments: Sequence[tuple[float, float]], couples: Sequence[tuple[int, int]], factor: float
) -> SpanChange | None:
    """Returns the largest difference in standard errors among those beyond the interval; None without one."""
    best, score = None, 1.0
    for earlier, later in couples:
        value = moments[later][0] - moments[earlier][0]
        half = factor * float(np.hypot(moments[later][1], moments[earlier][1]))
        ratio = abs(value) / half if half > 0 else (np.inf if value else 0.0)
        if ratio > score:
            best, score = SpanChange(earlier, later, value, half), ratio
    return best
