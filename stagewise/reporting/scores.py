"""Scores of circuits over a run: from the tables of a sweep, or from the event files of a training run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stagewise.reporting import tags
from stagewise.reporting.event_scalars import event_scalars

Array = NDArray[np.float64]

NAMES = ("prefix_matching", "previous_token", "copying", "icl_score", "loss_gap")
"""Names of the induction metrics, see :mod:`stagewise.lm.induction`; scores of heads are those of the best head."""

SWEEP_TABLE = "circuits.csv"
_PREFIX = "prefix_matching"
_OF_HEADS = ("prefix_matching", "previous_token", "copying")

INDUCING = 0.2
"""Least prefix matching with which a head counts as an induction head, so that its copying score is shown."""


@dataclass(frozen=True)
class Score:
    """One metric over training.

    Attributes:
        name: one of :data:`NAMES`.
        steps: ``[measurement]``, training steps, increasing.
        values: ``[measurement]``; scores of heads 0 to 1 (copying -1 to 1), others nats per token; NaN where unknown.
    """

    name: str
    steps: NDArray[np.int64]
    values: Array

    def rise(self) -> tuple[int, int] | None:
        """Returns steps between which the score goes from a quarter to three quarters of its way, lowest to highest.

        These are the first measurement above three quarters, and before it the last below a quarter. None if the score
        does not rise after its lowest value, or rises by less than 0.1.
        """
        known = self.known()
        low, high = (float(end(known.values, initial=worst)) for end, worst in ((np.min, np.inf), (np.max, -np.inf)))
        if not high - low >= 0.1:
            return None
        late = int(np.argmax(known.values >= low + 0.75 * (high - low)))
        early = np.flatnonzero(known.values[:late] <= low + 0.25 * (high - low))
        return (int(known.steps[early[-1]]), int(known.steps[late])) if len(early) else None

    def known(self) -> "Score":
        """Returns the score without the measurements that are NaN."""
        there = np.isfinite(self.values)
        return replace(self, steps=self.steps[there], values=self.values[there])


def copying_of_induction_heads(scores: Sequence[Score]) -> list[Score]:
    """Removes copying scores of heads that are not induction heads.

    ``copying`` is that of the head with the best prefix matching. While no head matches prefixes, as before training,
    that head changes from one measurement to the next and has random weights, so that the score jumps between -1 and 1
    without meaning.

    Args:
        scores: as :func:`read_scores` returns them.

    Returns:
        The scores in the same order, with ``copying`` NaN where prefix matching is below :data:`INDUCING`; without any
        prefix matching it is unchanged. Scores that are NaN throughout are left out.
    """
    prefix = next(
        (dict(zip(item.steps.tolist(), item.values, strict=True)) for item in scores if item.name == _PREFIX), None
    )
    found = []
    for score in scores:
        if score.name == "copying" and prefix is not None:
            inducing = [prefix.get(step, 0.0) >= INDUCING for step in score.steps.tolist()]
            score = replace(score, values=np.where(inducing, score.values, np.nan))
        if np.isfinite(score.values).any():
            found.append(score)
    return found


def read_scores(folder: Path) -> list[Score]:
    """Reads the scores of a run: from ``circuits.csv``, else those that an ``InductionCallback`` logged to TensorBoard.

    Args:
        folder: log directory of a training run, or output of a sweep.

    Returns:
        In the order of :data:`NAMES`; empty if nothing was measured.
    """
    table = folder / SWEEP_TABLE
    found = _from_table(table) if table.is_file() else _from_events(folder)
    return [
        Score(name, np.array(sorted(rows), dtype=np.int64), np.array([rows[step] for step in sorted(rows)]))
        for name in NAMES
        if (rows := found.get(name))
    ]


def _from_table(path: Path) -> dict[str, dict[int, float]]:
    table = pd.read_csv(path)
    # The copying score belongs to the head with the best prefix matching, as in training.
    ranked = table.sort_values("prefix_matching", ascending=False, kind="stable")
    found = {}
    for name in table.columns.intersection(NAMES):
        by_step = (ranked if name == "copying" else table).groupby("step")[name]
        values = by_step.first() if name == "copying" else by_step.max() if name in _OF_HEADS else by_step.last()
        found[name] = values.dropna().to_dict()
    return found


def _from_events(folder: Path) -> dict[str, dict[int, float]]:
    found = event_scalars(folder, [tags.induction(name) for name in NAMES])
    return {name: found[tag] for name in NAMES if (tag := tags.induction(name)) in found}
