"""Transition window: its place in training and its evidence."""

import math
from dataclasses import dataclass
from enum import StrEnum

from stagewise.checks.bounds import MaybeInfinite, settle_fields
from stagewise.phases.two_phase import TwoPhaseReading


class Method(StrEnum):
    """Ways to find a window: over the whole finished run, or one probe at a time."""

    offline = "offline"
    online = "online"


@dataclass(frozen=True)
class CriticalSample:
    """Sample whose loss moved far at the peak of a window.

    Attributes:
        sample: position in the observed set.
        shift: mean loss at the peak less that at its reference probe, nats; negative = learnt.
        shift_se: standard error of the shift, nats; NaN if unknown.
    """

    sample: int
    shift: float
    shift_se: float


@dataclass(frozen=True)
class Window:
    """Span of training in which the network changes phase, as seen in one signal.

    :func:`~stagewise.phases.offline.find_windows` and :class:`~stagewise.phases.online_detector.OnlineDetector` set the
    first five fields, ``method`` and, online, ``plateau`` and ``significance``;
    :func:`~stagewise.phases.detection.detect` sets the others too.

    Attributes:
        start: training step; offline where half of the prominence is reached, online that of the probe that opened the
            window, the last of the ``num_probes`` that had to agree.
        peak: training step of the highest probe; online that of the probe farthest from the plateau since the start.
        end: training step; offline where the signal has fallen to half of its prominence, online that of the probe that
            closed the window; None while it is open.
        value: the signal at its peak, in the signal's unit.
        height: offline the prominence, over the higher of the two neighbouring valleys; online the distance from the
            plateau. Same unit; negative if the signal falls.
        method: way in which the window was found.
        plateau: online the level of the signal before the window, same unit; None offline.
        significance: size of the height in standard errors: offline that of the probe at the peak, online that of the
            probe and its plateau, infinite if neither has an error. None if no error is known.
        signal: name, see :class:`~stagewise.phases.signal.Signal`; None for values without a name.
        units: of the signal.
        critical: samples with the largest absolute shift at the peak, largest first.
        steps: training steps of the probes of the two-phase reading: those of the window and, if it starts or ends
            between probes, the nearest outside.
        reading: two-phase reading of the closed window; None with fewer than three probes.

    Raises:
        InputError: a value of another type.
    """

    start: int
    peak: int
    end: int | None
    value: float
    height: float
    method: Method = Method.offline
    plateau: float | None = None
    significance: MaybeInfinite | None = None
    signal: str | None = None
    units: str | None = None
    critical: tuple[CriticalSample, ...] = ()
    steps: tuple[int, ...] = ()
    reading: TwoPhaseReading | None = None

    def __post_init__(self) -> None:
        settle_fields(self)

    @property
    def prominence(self) -> float:
        """Size of the height, in the signal's unit."""
        return abs(self.height)

    @property
    def z(self) -> float:
        """Signed height in standard errors; NaN if no error is known."""
        return math.nan if self.significance is None else math.copysign(self.significance, self.height)

    def covers(self, step: int) -> bool:
        """Returns True if a training step lies in the window, including start and end; an open window has no end."""
        return self.start <= step and (self.end is None or step <= self.end)
