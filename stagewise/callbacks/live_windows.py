"""Windows of an intervention, opened and closed by a detector during the run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import xarray as xr
from lightning.pytorch import Trainer

from stagewise.callbacks.influence import InfluenceCallback
from stagewise.errors import InputError
from stagewise.influence.groups import Groups
from stagewise.interventions.check_weights import check_names
from stagewise.interventions.influence_table import InfluenceTable
from stagewise.interventions.policy import Policy, ProportionalToInfluence
from stagewise.interventions.weight_plan import Plan
from stagewise.interventions.window_sources import LIVE_KINDS, Live
from stagewise.phases.online_detector import Direction, Event, EventKind, OnlineDetector
from stagewise.phases.signal import Kind, Signal


class Intervention(Protocol):
    """Interface of the controlled intervention; see ``InterventionCallback``."""

    policy: Policy

    @property
    def plan(self) -> Plan | None: ...  # noqa: D102

    def open(self, step: int, reason: str, *, influence: InfluenceTable | None) -> None: ...  # noqa: D102

    def update(self, step: int, reason: str, *, influence: InfluenceTable | None) -> None: ...  # noqa: D102

    def close(self, step: int, reason: str) -> None: ...  # noqa: D102


def find_influence(trainer: Trainer) -> InfluenceCallback:
    """Returns the trainer's InfluenceCallback.

    Raises:
        InputError: none, several, or a disabled one.
    """
    found = [callback for callback in trainer.callbacks if isinstance(callback, InfluenceCallback)]  # type: ignore[attr-defined]
    if len(found) != 1 or not found[0].enabled:
        what = f"{len(found)} InfluenceCallbacks" if len(found) != 1 else "InfluenceCallback(enabled=False)"
        raise InputError(
            f"got a detector and {what} in the trainer; expected one that probes; add InfluenceCallback to callbacks, "
            "or give Spans or FromRun instead of Live"
        )
    return found[0]


class LiveWindows:
    """Feeds the probes of a run to a detector, and opens, updates and closes windows accordingly.

    A window opens at the step of the detecting probe, whatever the order of the callbacks; inside it the policy updates
    the weights at each probe.
    """

    def __init__(self, live: Live) -> None:
        """Starts without probes.

        Args:
            live: detector, signal and number of windows.
        """
        self._signal, self._max_windows = Signal.parse(live.signal, kinds=LIVE_KINDS), live.max_windows
        either = live.detector.direction is Direction.either
        self._config = live.detector if either else replace(live.detector, direction=self._signal.direction)
        self._detector = OnlineDetector(self._config)
        self._earlier: dict[int, list[float]] = {}
        self._pending: list[tuple[int, xr.Dataset | None]] = []
        self._influence: InfluenceCallback | None = None
        self._target: Intervention | None = None
        self._checked = False

    def __repr__(self) -> str:
        return f"{self._config}, signal={self._signal}, max_windows={self._max_windows}"

    def attach(self, trainer: Trainer) -> None:
        """Subscribes to the probes, before training.

        Raises:
            InputError: see :func:`find_influence`.
        """
        self._influence, self._target, self._checked = find_influence(trainer), None, False
        self._pending.clear()
        self._influence.subscribe(self.hear)

    def start(self, target: Intervention, state: Mapping[str, Any] | None, step: int) -> None:
        """Starts control, beginning with the probes so far.

        Args:
            target: with its plan.
            state: of a checkpoint; None without one.
            step: at which training starts or resumes.
        """
        if state is not None:
            self._detector.load_state_dict(state["detector"])
            self._earlier = {int(at): list(losses) for at, losses in state["earlier"].items()}
        elif step == 0:
            self._detector, self._earlier = OnlineDetector(self._config), {}
        self._target = target
        pending, self._pending = self._pending, []
        for at, probe in pending:
            self.hear(at, probe)
        self.tick(step)

    def end(self) -> None:
        """Unsubscribes from the probes."""
        self._target = None
        if self._influence is not None:
            self._influence.unsubscribe(self.hear)

    def check(self) -> None:
        """Refuses, before the first training step, a signal that the probes do not have.

        Raises:
            InputError: such a signal, or a policy whose groups are not those of the data.
        """
        groups = None if self._influence is None else self._influence.groups
        if self._checked or groups is None or self._target is None or self._target.plan is None:
            return
        self._checked = True
        _check_signal(self._signal, groups)
        _check_policy(self._target.policy, groups.names, self._target.plan.names)

    def hear(self, step: int, probe: xr.Dataset | None) -> None:
        """Processes a probe; None if it raised or all its chains failed.

        Every rank receives the probe of rank zero, so that all act alike.
        """
        target = self._target
        if target is None or target.plan is None:
            self._pending.append((step, probe))
            return
        self.tick(step)
        value, error, table = math.nan, math.nan, None
        if probe is not None:
            value, error = map(float, self._signal.read(probe, self._earlier))
            table = InfluenceTable.from_probe(probe) if "group_bif" in probe else None
            self._earlier = self._signal.remember(self._earlier, probe)
        event = self._detector.update(step, value, error)
        words = f"{self._signal} {value:.4g}"
        if event is not None and event.kind is EventKind.opened:
            if not target.plan.is_open and (self._max_windows is None or target.plan.windows < self._max_windows):
                target.open(step, f"{words} opens a window, z {event.window.z:.3g}", influence=table)
        elif event is not None:
            self._close(event, f"{words} closes the window")
        elif target.plan.is_open and probe is not None:
            target.update(step, f"probe with {words}", influence=table)

    def tick(self, step: int) -> None:
        """Closes a window after ``max_length`` steps; called after each batch."""
        event = self._detector.expire(step)
        if event is not None:
            self._close(event, f"the window has lasted {self._config.max_length} steps")

    def _close(self, event: Event, reason: str) -> None:
        if self._target is not None and self._target.plan is not None and self._target.plan.is_open:
            self._target.close(event.step, reason)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain Python."""
        return {"detector": self._detector.state_dict(), "earlier": dict(self._earlier)}


def _check_signal(signal: Signal, groups: Groups) -> None:
    Signal.parse(signal.name, groups.names, kinds=LIVE_KINDS)
    if signal.kind not in (Kind.within, Kind.total):
        return
    row, column = (groups.names.index(name) for name in signal.groups)
    if not groups.has_pairs[row, column]:
        raise InputError(
            f"got signal {signal.name!r} of two groups without losses in different samples; expected some; "
            "observe more samples, or choose another pair"
        )


def _check_policy(policy: Policy, probed: Sequence[str], names: Sequence[str]) -> None:
    if isinstance(policy, ProportionalToInfluence):
        check_names([policy.target], probed)
        check_names(probed, names)
