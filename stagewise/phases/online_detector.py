"""Causal detector of transitions during a run, which receives one probe at a time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any

from stagewise.checks.bounds import check_arguments, check_value, float_array, settle_fields, shown
from stagewise.checks.ranges import NonNegativeInt, at_least, fraction, within
from stagewise.errors import InputError, require
from stagewise.phases.plateau import Plateau
from stagewise.phases.window import Method, Window


class Direction(StrEnum):
    """Directions in which a signal may leave its plateau.

    Members are named as the YAML writes them:
        rising: upwards, like the between signal and loss differences.
        falling: downwards, like the influence of a pair that becomes helpful (negative = helpful).
        either: up or down; the signal must stay on that side.
    """

    rising = "rising"
    falling = "falling"
    either = "either"

    def side(self, departure: float) -> int:
        """Returns the side of the plateau of a departure, 1 or -1; 0 if this direction does not count."""
        found = int(departure > 0) - int(departure < 0)
        return 0 if self is not Direction.either and found != {"rising": 1, "falling": -1}[self] else found


@dataclass(frozen=True)
class DetectorConfig:
    """Settings for the opening and closing of windows.

    Attributes:
        direction: direction of the signal in a transition.
        min_z: standard errors from the level of the plateau at which a window opens, for a plateau of many probes; more
            with few probes, see :class:`~stagewise.phases.plateau.Plateau`.
        num_probes: number of consecutive probes that must agree to open or close a window.
        min_plateau: fewest probes in a plateau before a window may open.
        close_fraction: a window closes when the signal has lost this fraction of its height over the plateau.
        max_length: largest length of a window in training steps; it then closes even between probes. None for no limit.
        refractory: training steps after a window during which probes are ignored.

    Raises:
        InputError: a setting outside of its range.
    """

    direction: Direction = Direction.rising
    min_z: Annotated[float, within(0, 20, "3 is usual", with_low=False)] = 3.0
    num_probes: Annotated[int, at_least(1, "2 lets a single outlier pass")] = 2
    min_plateau: Annotated[int, at_least(3, "8 probes determine a spread")] = 8
    close_fraction: Annotated[float, fraction("0.5 is usual")] = 0.5
    max_length: Annotated[int, at_least(1, "count training steps")] | None = None
    refractory: NonNegativeInt = 0

    def __post_init__(self) -> None:
        settle_fields(self)


class EventKind(StrEnum):
    """Kinds of events at a probe."""

    opened = "opened"
    closed = "closed"


@dataclass(frozen=True)
class Event:
    """Opening or closing of a window.

    Attributes:
        kind: ``opened`` or ``closed``.
        step: training step of the event.
        window: the window after the event.
    """

    kind: EventKind
    step: int
    window: Window


class OnlineDetector:
    """Opens a window when a signal leaves its plateau, and closes it when the signal declines; never looks ahead.

    Outside of windows each probe is compared with the plateau, the probes since the last window (or the start). Probes
    that depart are held back: ``num_probes`` in a row on one side open a window; fewer are added to the plateau. In a
    window the plateau is frozen. The window closes when ``num_probes`` in a row are at or below ``1 - close_fraction``
    of the largest height, or at ``max_length``. The next plateau starts empty.

    A permanent level shift has no decline: set ``max_length`` if such shifts are expected.

    False alarms: ``benchmarks/false_alarms.py`` states their rate on a plateau, and measures it.
    """

    def __init__(self, config: DetectorConfig | None = None) -> None:
        """Starts before the first probe.

        Args:
            config: settings; the defaults if None.
        """
        check_arguments("OnlineDetector", OnlineDetector.__init__, locals())
        self.config = DetectorConfig() if config is None else config
        self._last_step = -1
        self._plateau = Plateau()
        self._departed: list[float] = []
        self._side = 0
        self._window: Window | None = None
        self._num_low = 0
        self._closed: list[Window] = []

    @property
    def window(self) -> Window | None:
        """Open window; None without one."""
        return self._window

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows so far, the open one last."""
        return (*self._closed, *(() if self._window is None else (self._window,)))

    def update(self, step: int, value: float, error: float = math.nan) -> Event | None:
        """Processes one probe.

        Args:
            step: training step, larger than that of any earlier probe.
            value: the signal; a value that is not finite is skipped, although ``max_length`` still applies.
            error: its standard error, same unit; NaN if unknown.

        Returns:
            The event; None if no window opened or closed.

        Raises:
            InputError: steps do not increase, or a negative error.
        """
        step = check_value("step", step, int)
        for name, given in (("value", value), ("error", error)):
            require(float_array(name, given).ndim == 0, name, shown(given), "one number", "update once for each probe")
        if not step > self._last_step:
            raise InputError(f"got step={step} after step {self._last_step}; expected probes in order of training")
        require(not error < 0, "error", error, "0 or more, or NaN where it is not known", "pass a standard error")
        step, value, error = int(step), float(value), float(error)
        self._last_step = step
        expired = self.expire(step)
        if self._window is not None:
            return self._follow(self._window, step, value, error)
        if not math.isfinite(value) or self._is_refractory(step):
            return expired
        # A new plateau opens no window at its first probe: at most one event.
        return self._watch(step, value, error) or expired

    def expire(self, step: int) -> Event | None:
        """Closes a window that has lasted ``max_length`` steps; call it between probes to close windows on time.

        Otherwise the next probe closes the window, which ends at the same step.

        Args:
            step: present training step.

        Returns:
            The event, exactly ``max_length`` steps after the start; None if no window closes.
        """
        limit = self.config.max_length
        if self._window is None or limit is None or step - self._window.start < limit:
            return None
        return self._close(self._window, self._window.start + limit)

    def _close(self, window: Window, step: int) -> Event:
        closed = replace(window, end=step)
        self._closed.append(closed)
        self._window, self._plateau, self._side, self._num_low = None, Plateau(), 0, 0
        return Event(EventKind.closed, step, closed)

    def _is_refractory(self, step: int) -> bool:
        last = self._closed[-1].end if self._closed else None
        return last is not None and step <= last + self.config.refractory

    def _watch(self, step: int, value: float, error: float) -> Event | None:
        """Processes a probe outside of windows."""
        side = 0
        if len(self._plateau) >= self.config.min_plateau:
            side = self.config.direction.side(value - self._plateau.level)
            if not self._plateau.departs(value, error, min_z=self.config.min_z):
                side = 0
        if side != self._side:
            self._plateau.extend(self._departed)
            self._departed.clear()
            self._side = side
        if side == 0:
            self._plateau.extend([value])
            return None
        self._departed.append(value)
        if len(self._departed) < self.config.num_probes:
            return None
        self._departed.clear()
        z = self._plateau.z(value, error)
        self._window = _window(start=step, plateau=self._plateau.level, peak_step=step, peak_value=value, z=z)
        self._num_low = 0
        return Event(EventKind.opened, step, self._window)

    def _follow(self, window: Window, step: int, value: float, error: float) -> Event | None:
        """Processes a probe inside a window."""
        if math.isfinite(value):
            height = self._side * (value - self._plateau.level)
            if height > abs(window.height):
                z = self._plateau.z(value, error)
                level = self._plateau.level
                window = _window(start=window.start, plateau=level, peak_step=step, peak_value=value, z=z)
            is_low = height <= (1 - self.config.close_fraction) * abs(window.height)
            self._num_low = self._num_low + 1 if is_low else 0
        if self._num_low < self.config.num_probes:
            self._window = window
            return None
        return self._close(window, step)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain Python; a detector that loads it continues without a trace of the stop."""
        return {
            "last_step": self._last_step,
            "plateau": list(self._plateau.values),
            "departed": list(self._departed),
            "side": self._side,
            "window": None if self._window is None else _state(self._window),
            "num_low": self._num_low,
            "closed": [_state(window) for window in self._closed],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state saved by :meth:`state_dict` of a detector with the same settings."""
        self._last_step = state["last_step"]
        self._plateau = Plateau(state["plateau"])
        self._departed = list(state["departed"])
        self._side = state["side"]
        self._window = None if state["window"] is None else _window(**state["window"])
        self._num_low = state["num_low"]
        self._closed = [_window(**window) for window in state["closed"]]


def _window(
    *, start: int, plateau: float, peak_step: int, peak_value: float, z: float, end: int | None = None
) -> Window:
    """Creates a window from the entries of a checkpoint."""
    return Window(
        start, peak_step, end, peak_value, peak_value - plateau, Method.online, plateau=plateau, significance=abs(z)
    )


def _state(window: Window) -> dict[str, Any]:
    """Returns the entries of a window for a checkpoint, plain Python."""
    return {
        "start": window.start,
        "end": window.end,
        "plateau": window.plateau,
        "peak_step": window.peak,
        "peak_value": window.value,
        "z": window.z,
    }
