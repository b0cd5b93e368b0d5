"""Spans of training in which weights are changed, given by the user or read from a finished run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from stagewise.checks.bounds import check_value, settle_fields
from stagewise.errors import InputError, require
from stagewise.files.json_input import read_json

SUMMARY_NAME = "summary.json"


@dataclass(frozen=True, order=True)
class Span:
    """Training steps at which weights are changed: ``start <= step < end``.

    The number of a step is ``trainer.global_step`` before its optimizer step: Span(0, 1) is the first update.

    Attributes:
        start: first step.
        end: first step after the span.

    Raises:
        InputError: a negative start, or an end that is not after the start.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        settle_fields(self, prefix="span ")
        for name, value in (("start", self.start), ("end", self.end)):
            require(type(value) is int, f"span {name}", repr(value), "a whole training step", "pass an integer")
        require(self.start >= 0, "span", self, "a start of 0 or more", "shift it less, or leave it out")
        require(self.end > self.start, "span", self, "an end after the start", "swap them, or leave it out")

    def __contains__(self, step: int) -> bool:
        return self.start <= step < self.end

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"

    def shifted(self, by: int) -> "Span":
        """Returns the span moved by ``by`` steps, negative = earlier, e.g. for an arm before or after the window.

        Raises:
            InputError: the new span would begin before step 0.
        """
        return Span(self.start + by, self.end + by)


class Part(StrEnum):
    """Parts of a transition window.

    Members are named as the YAML writes them:
        window: from start to end, where the signal is at half the prominence of its peak.
        onset: from start to peak.
        fixed: a given number of steps from the start, see ``length``.
    """

    window = "window"
    onset = "onset"
    fixed = "fixed"


def check_spans(spans: Iterable[Span], max_steps: int | None = None) -> tuple[Span, ...]:
    """Checks and sorts spans; adjacent spans are allowed.

    Args:
        spans: in any order.
        max_steps: steps of the run; None if unknown.

    Returns:
        The spans in order of training.

    Raises:
        InputError: two spans overlap, or one ends after the run.
    """
    ordered = tuple(sorted(spans))
    for first, second in pairwise(ordered):
        if second.start < first.end:
            raise InputError(
                f"got spans {first} and {second}, which overlap; expected one after the other; join them or shorten one"
            )
    if max_steps is not None and ordered and ordered[-1].end > max_steps:
        raise InputError(
            f"got span {ordered[-1]} for a run of {max_steps} steps; expected it to end within the run; "
            "train longer, or shorten or leave out the span"
        )
    return ordered


def read_spans(
    path: str | Path, *, part: Part = Part.window, length: int | None = None, shift: int = 0
) -> tuple[Span, ...]:
    """Returns spans at the transition windows of a finished run.

    Args:
        path: log directory of the run, or its ``summary.json``.
        part: part of each window.
        length: steps from the start of each window, only with ``Part.fixed``.
        shift: steps by which each span is then moved; negative = earlier.

    Raises:
        InputError: no such file, not a summary, no windows, a window without that part, spans that overlap or begin
            before step 0, or ``length`` is missing, below 1, or given although it has no effect.
    """
    check_length(part, length)
    spans = []
    for number, window in enumerate(_transitions(Path(path)), start=1):
        start, peak, end = window
        if length is not None:
            end = start + length
        elif part == Part.onset:
            end = peak
        if end <= start:
            raise InputError(
                f"got window {number} of {path} whose {part} is empty (start {start}, peak {peak}, end {window[2]}); "
                "expected at least one step; choose another part"
            )
        if start + shift < 0:
            raise InputError(
                f"got shift={shift} for window {number} of {path}, which starts at step {start}; expected a start of "
                "0 or more; shift it less"
            )
        spans.append(Span(start, end).shifted(shift))
    return check_spans(spans)


def check_length(part: Part, length: int | None) -> None:
    """Refuses a length without a fixed part, and a fixed part without a length of at least 1.

    Raises:
        InputError: part and length do not fit together.
    """
    fixed = Part(part) is Part.fixed
    if fixed != (length is not None) or (length is not None and length < 1):
        raise InputError(
            f"got part={part} and length={length}; expected a length of 1 or more with part=fixed, and none otherwise; "
            "set both or neither"
        )


def _step(row: Mapping[str, Any], name: str, file: Path) -> int:
    value = check_value(f"{name} of a transition in {file}", row.get(name), int, advice="name a finished run")
    require(value >= 0, f"{name} of a transition in {file}", value, "a training step, 0 or more", "name a finished run")
    return int(value)


def _transitions(path: Path) -> list[tuple[int, int, int]]:
    """Reads start, peak and end of each window from a summary."""
    file = path / SUMMARY_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"got {path}, where no {SUMMARY_NAME} is; expected the log directory of a finished run")
    what = "the summary of a run, with `transitions`, each with start, peak and end"
    advice = "name the folder of a finished run"
    content = read_json(file, what=what, advice=advice, keys=["transitions"])
    listed = check_value(f"transitions of {file}", content["transitions"], list[Mapping[str, Any]], advice=advice)
    windows = [(_step(row, "start", file), _step(row, "peak", file), _step(row, "end", file)) for row in listed]
    if not windows:
        raise InputError(
            f"got {file}, which has no transition window; expected at least one; lower probe.min_prominence, probe "
            "more densely, or give spans by hand"
        )
    return windows
