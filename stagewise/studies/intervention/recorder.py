"""Callbacks that cells add to an ordinary run: a record of its scores, its end, and checkpoints to branch from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from stagewise.reporting import tags
from stagewise.studies.intervention.outcomes import GAP_THRESHOLD, SCORE_THRESHOLD, Curve


class ScoreRecorder(pl.Callback):
    """Records the scores measured by an ``InductionCallback`` that is listed before it.

    The record and torch's random state are part of a checkpoint: a run resumed from it has the whole curve, and draws
    the same random numbers as the first run (for models with dropout).
    """

    def __init__(
        self,
        every_n_steps: int,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        gap_threshold: float = GAP_THRESHOLD,
    ) -> None:
        """Sets the interval, and the thresholds of a formed head.

        Args:
            every_n_steps: interval of the ``InductionCallback``.
            score_threshold: of the curve.
            gap_threshold: of the curve.
        """
        self._every = every_n_steps
        self._thresholds = {"score_threshold": score_threshold, "gap_threshold": gap_threshold}
        self._rows: list[tuple[int, float, float]] = []
        self._random: torch.Tensor | None = None

    @property
    def curve(self) -> Curve:
        """Scores so far."""
        steps, scores, gaps = zip(*self._rows, strict=True)
        return Curve(steps, scores, gaps, **self._thresholds)

    def _record(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        if step % self._every == 0 and (not self._rows or step > self._rows[-1][0]):
            found = [float(trainer.callback_metrics[tags.induction(name)]) for name in ("prefix_matching", "loss_gap")]
            self._rows.append((step, found[0], found[1]))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Records the initial weights, or continues with the random state of a checkpoint."""
        if self._random is not None:
            torch.set_rng_state(self._random)
            self._random = None
        elif trainer.global_step == 0:
            self._record(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Records the latest measurement, if new."""
        self._record(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the record, and torch's random state."""
        return {"rows": [list(row) for row in self._rows], "random": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state of a checkpoint."""
        self._rows = [(int(step), score, gap) for step, score, gap in state_dict["rows"]]
        self._random = state_dict["random"]


class Ending(pl.Callback):
    """Measures a run, and stops it once nothing more can be learned from it; list it after the ``ScoreRecorder``.

    Attributes:
        end: training step of the measurement; None before it.
    """

    def __init__(
        self,
        recorder: ScoreRecorder,
        measure: Callable[[], None],
        *,
        max_steps: int,
        settle_steps: int,
        end: int | None = None,
    ) -> None:
        """Sets the time of the measurement.

        Args:
            recorder: of the run.
            measure: called once.
            max_steps: of the run, at which it is measured at the latest.
            settle_steps: without ``end``, steps from the formation of the head to measurement and stop.
            end: training step of the measurement; the run then stops once its head has formed.
        """
        self._recorder, self._measure = recorder, measure
        self._max_steps, self._settle_steps, self._given = max_steps, settle_steps, end
        self.end: int | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures and stops when due."""
        step = trainer.global_step
        formed = self._recorder.curve.formed_step
        end = self._given
        if end is None:
            end = self._max_steps if formed is None else min(formed + self._settle_steps, self._max_steps)
        if step >= end and self.end is None:
            self.end = step
            self._measure()
        if self.end is not None and formed is not None:
            trainer.should_stop = True


class Branches(pl.Callback):
    """Saves a checkpoint every few steps, under names that :func:`branch_point` finds; list it last."""

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        """Sets the folder and the interval.

        Args:
            folder: for the checkpoints.
            every_n_steps: training steps between checkpoints.
        """
        self._folder = folder
        self._every = every_n_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves a checkpoint if due."""
        if trainer.global_step % self._every == 0:
            trainer.save_checkpoint(self._folder / f"{trainer.global_step}.ckpt")


def branch_point(folder: Path, step: int) -> tuple[Path | None, int]:
    """Returns the last checkpoint at or before a training step, and its step; None and 0 if there is none.

    Args:
        folder: of a run's checkpoints; may be missing.
        step: at which the runs diverge.
    """
    found = sorted((int(path.stem), path) for path in folder.glob("*.ckpt") if path.stem.isdigit())
    earlier = [(at, path) for at, path in found if at <= step]
    return (earlier[-1][1], earlier[-1][0]) if earlier else (None, 0)
