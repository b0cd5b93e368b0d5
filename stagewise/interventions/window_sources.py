"""Sources of the windows of an intervention: the user, an earlier run, or a detector during a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from stagewise.checks.bounds import settle_fields, shown
from stagewise.checks.ranges import at_least
from stagewise.errors import InputError, require
from stagewise.interventions.influence_table import InfluenceTable
from stagewise.interventions.span import Part, Span, check_length, read_spans
from stagewise.phases.online_detector import DetectorConfig
from stagewise.phases.signal import Kind, Signal

LIVE_KINDS = (Kind.between, Kind.losses_alone, Kind.within, Kind.total, Kind.contrast, Kind.group_loss)
"""Kinds of signals that a detector may watch."""


class Windows:
    """Base class of the sources of windows: :class:`Spans`, :class:`FromRun` and :class:`Live`.

    Attributes:
        influence: input of the policy, a table or None per window in order of training; None for no tables.
    """

    # A plain class, so that jsonargparse accepts any of the three by class_path.
    influence: Sequence[InfluenceTable | None] | None = None

    def resolve(self) -> tuple[Span, ...] | None:
        """Returns the windows if they are known before training, else None."""
        return None


@dataclass(frozen=True)
class Spans(Windows):
    """Windows given before training.

    Attributes:
        spans: each a :class:`~stagewise.interventions.span.Span` or (start, end), training steps; at least one.
        influence: see :class:`Windows`.

    Raises:
        InputError: no span, or an invalid one.
    """

    spans: Sequence[Span | tuple[int, int]]
    influence: Sequence[InfluenceTable | None] | None = None

    def __post_init__(self) -> None:
        advice = "give spans such as Spans([(300, 400)])"
        if isinstance(self.spans, (str, bytes)) or not isinstance(self.spans, Sequence):
            raise InputError(f"got spans={shown(self.spans)}; expected a list of Span or (start, end); {advice}")
        require(len(self.spans) > 0, "spans", shown(self.spans), "at least one window", advice)
        object.__setattr__(self, "spans", tuple(_span(span) for span in self.spans))
        settle_fields(self, leave=["spans"])

    def resolve(self) -> tuple[Span, ...]:
        """Returns the spans, in the order given."""
        return tuple(_span(span) for span in self.spans)


@dataclass(frozen=True)
class FromRun(Windows):
    """Windows at the transitions of an earlier run.

    Attributes:
        path: log directory of the run, its ``summary.json``, or a file written by ``stagewise detect``.
        part: part of each transition: ``window``, ``onset`` or ``fixed``.
        length: with ``part="fixed"``, steps from the start of each transition.
        shift: steps by which windows are moved; negative = earlier.
        influence: see :class:`Windows`.

    Raises:
        InputError: a value of another type, or ``length`` is missing, below 1, or given although it has no effect.
    """

    path: str
    part: Part = Part.window
    length: int | None = None
    shift: int = 0
    influence: Sequence[InfluenceTable | None] | None = None

    def __post_init__(self) -> None:
        settle_fields(self)
        check_length(self.part, self.length)

    def resolve(self) -> tuple[Span, ...]:
        """Returns the spans, in order of training.

        Raises:
            InputError: as :func:`~stagewise.interventions.span.read_spans`.
        """
        return read_spans(self.path, part=self.part, length=self.length, shift=self.shift)


@dataclass(frozen=True)
class Live(Windows):
    """Windows that a detector opens and closes at the probes of the trainer's ``InfluenceCallback``.

    Attributes:
        detector: opens and closes the windows; its direction is that of the signal, unless ``either``.
        signal: signal to watch: ``between``, ``losses_alone``, ``within/A~B``, ``total/A~B``, ``contrast/A~B`` or
            ``group_loss/A``, see :class:`~stagewise.phases.signal.Kind`.
        max_windows: largest number of windows; None for any number.

    Raises:
        InputError: a value of another type, a signal that cannot be read live, ``max_windows`` below 1, or
            ``group_loss/A``, which does not rise again, without ``detector.max_length``.
    """

    detector: DetectorConfig
    signal: str
    max_windows: Annotated[int, at_least(1, "1 is usual")] | None = None

    def __post_init__(self) -> None:
        settle_fields(self)
        signal = Signal.parse(self.signal, kinds=LIVE_KINDS)
        if signal.kind is Kind.group_loss and self.detector.max_length is None:
            raise InputError(
                f"got signal {self.signal!r}, which does not rise again after a transition, and max_length=None; "
                "expected a limit, or the window never closes; set detector.max_length"
            )


def _span(given: object) -> Span:
    if isinstance(given, Span):
        return given
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return Span(*given)
    raise InputError(f"got window {shown(given)}; expected a Span or (start, end), training steps; give both steps")
