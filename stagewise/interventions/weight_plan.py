"""Weights of the groups over training, with a log of all changes."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stagewise.errors import InputError, require
from stagewise.interventions.budget import Budget, budget
from stagewise.interventions.check_weights import GroupWeights, complete_weights
from stagewise.interventions.influence_table import InfluenceTable
from stagewise.interventions.policy import Policy, check_policy, decide_weights
from stagewise.interventions.span import Span, check_spans
from stagewise.interventions.strata import Strata


@dataclass(frozen=True)
class Change:
    """Change of weights that holds from a step on.

    Attributes:
        step: ``trainer.global_step`` before the first optimizer step with these weights.
        weights: of all groups.
        reason: in words.
        inside: True if a window is open from this step on. With weights of 1 the window is a placebo.
    """

    step: int
    weights: Mapping[str, float]
    reason: str
    inside: bool


class Plan:
    """Weights of groups over training: 1 outside of windows.

    A plan is either *fixed*, with all windows known before training, or *live*: a detector opens and closes windows.

    Attributes:
        names: the groups.
        fixed: True if the windows are known before training.
        changes: log of all changes of weights in order; for a fixed plan, including future ones.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Creates a live plan without windows.

        Args:
            names: the groups.
        """
        self.names = tuple(names)
        self.fixed = False
        self.changes: list[Change] = []
        self._windows = 0

    @classmethod
    def from_spans(
        cls,
        names: Sequence[str],
        spans: Sequence[Span],
        policy: Policy,
        *,
        influence: Sequence[InfluenceTable | None] | None = None,
        max_steps: int | None = None,
    ) -> "Plan":
        """Creates a fixed plan.

        Args:
            names: the groups.
            spans: windows, in any order.
            policy: decides the weights of each window when the plan is created.
            influence: from an earlier run, one table (or None) per span in order of training; None for no tables.
            max_steps: steps of the run; None if unknown.

        Raises:
            InputError: spans overlap or end after the run; the policy does not support these groups, or returns unknown
                groups or invalid weights; or the numbers of tables and spans differ.
        """
        plan = cls(names)
        check_policy(policy, plan.names)
        ordered = check_spans(spans, max_steps)
        tables = [None] * len(ordered) if influence is None else list(influence)
        if len(tables) != len(ordered):
            raise InputError(f"got {len(tables)} influence tables for {len(ordered)} spans; expected one for each")
        for window, (span, table) in enumerate(zip(ordered, tables, strict=True)):
            weights = decide_weights(policy, plan.names, window=window, step=span.start, influence=table)
            plan.open(span.start, weights, reason=f"window {window} {span} opens")
            plan.close(span.end, reason=f"window {window} {span} closes")
        plan.fixed = True
        return plan

    @property
    def is_open(self) -> bool:
        """True if a window is open after the last change."""
        return bool(self.changes) and self.changes[-1].inside

    @property
    def windows(self) -> int:
        """Number of windows opened so far; for a fixed plan, of all windows."""
        return self._windows

    def open(self, step: int, weights: GroupWeights, *, reason: str = "window opens") -> None:
        """Opens a window.

        Args:
            step: first training step with the weights.
            weights: of the groups; 1 for groups that are not mentioned.
            reason: for the log.

        Raises:
            InputError: the plan is fixed, a window is open, the step lies before the last change, or the weights are
                invalid.
        """
        if self.is_open:
            raise InputError(
                f"got a window to open at step {step} while one is open since step {self.changes[-1].step}; expected "
                "one at a time; close it first, or update its weights"
            )
        self._add(step, weights, reason, inside=True)
        self._windows += 1

    def update(self, step: int, weights: GroupWeights, *, reason: str = "weights change") -> None:
        """Changes the weights inside the open window; logs nothing if they stay the same.

        Raises:
            InputError: no window is open, or as :meth:`open`.
        """
        self._require_open(step)
        if complete_weights(weights, self.names) != self.changes[-1].weights:
            self._add(step, weights, reason, inside=True)

    def close(self, step: int, *, reason: str = "window closes") -> None:
        """Closes the open window: from ``step`` on all weights are 1.

        Raises:
            InputError: the plan is fixed, no window is open, or the step lies before the last change.
        """
        self._require_open(step)
        self._add(step, {}, reason, inside=False)

    def _require_open(self, step: int) -> None:
        if not self.is_open:
            raise InputError(f"got a window to change at step {step} while none is open; expected an open one")

    def _add(self, step: int, weights: GroupWeights, reason: str, *, inside: bool) -> None:
        if self.fixed:
            raise InputError(
                f"got a change at step {step} of a plan with fixed windows; expected none; make it live: Plan(names)"
            )
        if step < (self.changes[-1].step if self.changes else 0):
            raise InputError(
                f"got a change at step {step}; expected one at step {self.changes[-1].step if self.changes else 0} or "
                "later; weights cannot be changed in the past"
            )
        self.changes.append(Change(step, complete_weights(weights, self.names), reason, inside))

    def _at(self, step: int) -> Change | None:
        place = bisect_right(self.changes, step, key=lambda change: change.step)
        return self.changes[place - 1] if place else None

    def weights_at(self, step: int) -> dict[str, float]:
        """Returns the weight of each group at a training step; for a live plan, as far as known now."""
        change = self._at(step)
        return dict.fromkeys(self.names, 1.0) if change is None else dict(change.weights)

    def by_batch(
        self, *, batches_per_step: int = 1, batches_per_epoch: int | None = None
    ) -> Callable[[int], dict[str, float]]:
        """Returns a function from the number of a batch in the run to weights, as a loader needs it.

        Args:
            batches_per_step: batches accumulated in one optimizer step.
            batches_per_epoch: batches after which an epoch, and with it an unfinished accumulation, ends; None for a
                single epoch.

        Raises:
            InputError: a number below 1.
        """
        for name, value in (("batches_per_step", batches_per_step), ("batches_per_epoch", batches_per_epoch)):
            require(value is None or value >= 1, name, value, "1 or more", "pass the Trainer's setting")

        def weights_for(number: int) -> dict[str, float]:
            epoch, batch = (0, number) if batches_per_epoch is None else divmod(number, batches_per_epoch)
            steps_per_epoch = -(-(batches_per_epoch or 0) // batches_per_step)
            return self.weights_at(epoch * steps_per_epoch + batch // batches_per_step)

        return weights_for

    def inside_at(self, step: int) -> bool:
        """Returns True if a window is open at a training step."""
        change = self._at(step)
        return change is not None and change.inside

    def spans(self, *, until: int) -> tuple[Span, ...]:
        """Returns the windows that opened before ``until``; a window still open then ends there.

        Args:
            until: training step that ends the count, exclusive.
        """
        starts: list[int] = []
        ends: list[int] = []
        for change in self.changes:
            if change.inside and len(starts) == len(ends):
                starts.append(change.step)
            elif not change.inside:
                ends.append(min(change.step, until))
        closed = [*ends, *([until] if len(starts) > len(ends) else [])]
        return tuple(Span(start, end) for start, end in zip(starts, closed, strict=True) if start < end)

    def budget(self, strata: Strata, *, end: int, start: int = 0) -> Budget:
        """Sums the changes of the plan from ``start`` to ``end``, see :class:`~stagewise.interventions.budget.Budget`.

        Args:
            strata: of the data, with the same groups.
            end: last step, exclusive.
            start: first step.
        """
        return budget(strata, [(change.step, change.weights) for change in self.changes], end=end, start=start)

    def state_dict(self) -> dict[str, Any]:
        """Returns the groups, the kind of plan and the log as plain Python."""
        changes = [{**asdict(change), "weights": dict(change.weights)} for change in self.changes]
        return {"names": list(self.names), "fixed": self.fixed, "windows": self._windows, "changes": changes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from a saved state: a live plan adopts the log, a fixed plan compares it with its own.

        Raises:
            InputError: the groups differ, a fixed plan has other windows or weights, or one is live and one fixed.
        """
        if state["names"] != list(self.names):
            raise InputError(
                f"got a checkpoint with groups {state['names']} and a plan with {list(self.names)}; expected the same; "
                "change the groups back to resume"
            )
        if state["fixed"] != self.fixed:
            kinds = {True: "fixed windows", False: "live windows"}
            raise InputError(
                f"got a checkpoint with {kinds[state['fixed']]} and a plan with {kinds[self.fixed]}; expected the "
                "same; change it back to resume"
            )
        changes = [Change(**change) for change in state["changes"]]
        if self.fixed and list(map(_effect, changes)) != list(map(_effect, self.changes)):
            raise InputError(
                f"got a checkpoint whose windows change weights at steps {[change.step for change in changes]}, and "
                f"a plan with others ({[change.step for change in self.changes]}); expected the same steps and "
                "weights; change them back to resume"
            )
        self.changes = changes
        self._windows = state["windows"]


def _effect(change: Change) -> tuple[int, dict[str, float], bool]:
    """Returns the effect of a change, without its reason."""
    return change.step, dict(change.weights), change.inside
