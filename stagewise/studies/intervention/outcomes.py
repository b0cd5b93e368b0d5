"""Outcomes of a run: time and growth of the head, its cost, and the model's reliance on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stagewise.errors import InputError

SCORE_THRESHOLD = 0.5
"""Default prefix-matching score of the best head at which the head counts as formed."""

GAP_THRESHOLD = 1.5
"""Default nats by which a second copy's loss must be below the first's for the behaviour to count as formed."""


@dataclass(frozen=True)
class Curve:
    """Scores over training.

    Attributes:
        steps: ``[measurement]``, training steps, increasing; the first is 0.
        prefix_matching: ``[measurement]``, of the best head, 0 to 1.
        loss_gap: ``[measurement]``, loss on the second copy minus loss on the first, nats per token; negative = copies.
        score_threshold: prefix score above which the head counts as formed, 0 to 1.
        gap_threshold: nats by which the second copy's loss must be below the first's for the behaviour to count.

    Raises:
        InputError: lengths differ, there is no measurement, or steps do not increase.
    """

    steps: tuple[int, ...]
    prefix_matching: tuple[float, ...]
    loss_gap: tuple[float, ...]
    score_threshold: float = SCORE_THRESHOLD
    gap_threshold: float = GAP_THRESHOLD

    def __post_init__(self) -> None:
        sizes = {len(self.steps), len(self.prefix_matching), len(self.loss_gap)}
        increasing = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if len(sizes) > 1 or not self.steps or not increasing:
            raise InputError(
                f"got curves of lengths {sorted(sizes)} at steps {list(self.steps)[:5]}...; expected one score of each "
                "kind at each of increasing steps"
            )

    def until(self, step: int) -> "Curve":
        """Returns the measurements up to and including a step."""
        keep = sum(at <= step for at in self.steps)
        kept = {name: getattr(self, name)[:keep] for name in ("steps", "prefix_matching", "loss_gap")}
        return replace(self, **kept)

    @property
    def score_step(self) -> int | None:
        """First measured step at which the prefix score has passed ``score_threshold``; None if it has not."""
        return self.step_at_score(self.score_threshold)

    @property
    def gap_step(self) -> int | None:
        """First measured step at which the loss gap has passed minus ``gap_threshold``; None if it has not."""
        return _first(self.steps, [value < -self.gap_threshold for value in self.loss_gap])

    @property
    def formed_step(self) -> int | None:
        """First measured step at which the head has formed by score and by loss gap; None if it has not."""
        both = (self.score_step, self.gap_step)
        return None if None in both else max(step for step in both if step is not None)

    def step_at_score(self, threshold: float) -> int | None:
        """Returns the first measured step at which the prefix score is above ``threshold``; None if it never is."""
        return _first(self.steps, [value > threshold for value in self.prefix_matching])

    @property
    def mean_score(self) -> float:
        """Area under the prefix score over the run, divided by its steps: 0 to 1, by the trapezoidal rule."""
        if len(self.steps) == 1:
            return self.prefix_matching[0]
        area = np.trapezoid(self.prefix_matching, self.steps)
        return float(area) / (self.steps[-1] - self.steps[0])


def _first(steps: Sequence[int], passed: Sequence[bool]) -> int | None:
    return next((step for step, has in zip(steps, passed, strict=True) if has), None)


@dataclass(frozen=True)
class Ablation:
    """Trained model without its best induction head, on held-out sequences.

    Attributes:
        layer: of the head with the best prefix-matching score at the end of the run.
        head: its number in the layer.
        loss: mean loss of the group of interest with it, nats per token.
        loss_without: the same with the head's output set to zero.
    """

    layer: int
    head: int
    loss: float
    loss_without: float

    @property
    def rise(self) -> float:
        """Rise of the loss without the head, nats per token; positive = the model relies on the head."""
        return self.loss_without - self.loss
