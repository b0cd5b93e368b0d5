"""A transition window."""

from dataclasses import dataclass

from stagewise.checks.bounds import settle_fields


@dataclass(frozen=True)
class Window:
    """A span of training in which the network changes phase.

    Attributes:
        start: training step at which the signal has risen to half of its prominence.
        peak: training step of the largest signal.
        end: training step at which the signal has fallen to half of its prominence.
        signal: the signal at its peak, in the signal's unit.
        prominence: height of the peak over the higher of its two surrounding valleys, same unit.
    """

    start: int
    peak: int
    end: int
    signal: float
    prominence: float

    def __post_init__(self) -> None:
        settle_fields(self)
