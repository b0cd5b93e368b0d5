"""Scores of circuits over a run: from the tables of a sweep, or from the event files of a training run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stagewise.reporting import tags

Array = NDArray[np.float64]

NAMES = ("prefix_matching", "previous_token", "copying", "icl_score", "loss_gap")
"""The induction metrics, see :mod:`stagewise.lm.induction`; of heads, that of the best one."""

SWEEP_TABLE = "circuits.csv"
_OF_HEADS = ("prefix_matching", "previous_token", "copying")


@dataclass(frozen=True)
class Score:
    """One metric over training.

    Attributes:
        name: one of :data:`NAMES`.
        steps: ``[measurement]``, training steps, increasing.
        values: ``[measurement]``; scores of heads 0 to 1 (copying -1 to 1), others nats per token.
    """

    name: str
    steps: NDArray[np.int64]
    values: Array

    def rise(self) -> tuple[int, int] | None:
        """Returns steps between which the score goes from a quarter to three quarters of its way, lowest to highest.

        Those are the last measurement below a quarter before the first above three quarters, and the latter. None where
        the score does not rise after its lowest value, or goes up by less than .1.
        """
        low, high = float(self.values.min()), float(self.values.max())
        if high - low < 0.1:
            return None
        late = int(np.argmax(self.values >= low + 0.75 * (high - low)))
        early = np.flatnonzero(self.values[:late] <= low + 0.25 * (high - low))
        return (int(self.steps[early[-1]]), int(self.steps[late])) if len(early) else None


def read_scores(folder: Path) -> list[Score]:
    """Scores that a run has: of ``circuits.csv``, else those that an ``InductionCallback`` logged to TensorBoard.

    Args:
        folder: log directory of a training run, or output of a sweep.

    Returns:
        In the order of :data:`NAMES`; none where nothing was measured.
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
    if not list(folder.glob("events.out.tfevents.*")):
        return {}
    # Late: TensorBoard takes a while to import.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    known = set(events.Tags()["scalars"])
    return {
        name: {event.step: event.value for event in events.Scalars(tags.induction(name))}
        for name in NAMES
        if tags.induction(name) in known
    }
