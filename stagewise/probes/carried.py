"""State of a run that later probes depend on."""

from collections.abc import Mapping
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stagewise.influence.baselines.tracin import TracIn
from stagewise.influence.group_draws import GroupDraws
from stagewise.probes.references import References


class TracInOfRun(TracIn):
    """TracIn over the steps of a run, from the gradient dot product of each probe."""

    def __init__(self) -> None:
        """Starts before the first probe."""
        super().__init__()
        self._last_step, self._lr_sum = 0, 0.0

    def add_probe(
        self, dot: NDArray[np.float64], step: int, lr_sum: float | None, *, defined: NDArray[np.bool_]
    ) -> NDArray[np.float64] | None:
        """Adds a probe.

        Args:
            dot: ``[group, group]`` gradient dot products.
            step: training step of the probe.
            lr_sum: sum of the learning rates over training so far, or None.
            defined: where groups have a pair of losses in different samples.

        Returns:
            The sum so far ``[group, group]``, nats. None, with nothing added, before the first training step, without
            learning rates, or if a product is not finite.
        """
        finite = np.isfinite(dot[defined]).all()
        if lr_sum is None or not np.isfinite(lr_sum) or step <= self._last_step or not finite:
            return None
        total = self.add(dot, lr_sum=lr_sum - self._lr_sum, defined=defined)
        self._last_step, self._lr_sum = step, lr_sum
        return total

    def keep(self, groups: list[int]) -> None:
        """Keeps a subset of the groups, by position."""
        if self._total is not None:
            self._total = self._total[groups][:, groups]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as tensors and plain Python."""
        return {"tracin": super().state_dict(), "last_step": self._last_step, "lr_sum": self._lr_sum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what :meth:`state_dict` saved."""
        super().load_state_dict(state["tracin"])
        self._last_step, self._lr_sum = state["last_step"], state["lr_sum"]


class Mark(NamedTuple):
    """Snapshot, see :meth:`Carried.mark`."""

    references: References
    tracin: TracInOfRun
    num_probes: int


class News(NamedTuple):
    """Additions of a probe, for processes whose state is otherwise the same.

    Attributes:
        steps: of the references now.
        newest: the probe itself, if it is one of them.
        tracin: state of its sum.
        num_probes: probes so far.
    """

    steps: list[int]
    newest: GroupDraws | None
    tracin: dict[str, Any]
    num_probes: int


class Carried:
    """Draws of references, the sum of TracIn, and the number of probes.

    Attributes:
        references: cached draws of earlier probes.
        tracin: its sum so far.
        num_probes: probes so far.
    """

    def __init__(self, reference_ratio: float) -> None:
        """Starts before the first probe."""
        self.references = References(reference_ratio)
        self.tracin = TracInOfRun()
        self.num_probes = 0

    def mark(self) -> Mark:
        """Returns a snapshot; shallow, since updates replace arrays and lists."""
        return Mark(copy(self.references), copy(self.tracin), self.num_probes)

    def return_to(self, mark: Mark) -> None:
        """Restores a snapshot after a probe failed, on this or another rank."""
        self.references, self.tracin, self.num_probes = copy(mark.references), copy(mark.tracin), mark.num_probes

    def news(self, step: int) -> News:
        """Returns the additions of the latest probe.

        Args:
            step: training step.
        """
        references = self.references
        return News(references.steps, references.at(step), self.tracin.state_dict(), self.num_probes)

    def follow(self, news: News) -> None:
        """Applies the additions of a probe in another process."""
        self.references.follow(news.steps, news.newest)
        self.tracin, self.num_probes = TracInOfRun(), news.num_probes
        self.tracin.load_state_dict(news.tracin)

    def keep(self, rows: NDArray[np.int64], *, reduced: list[int], groups: list[int]) -> None:
        """Keeps a subset of the observed set.

        Args:
            rows: positions of the samples to keep.
            reduced: positions of the features to keep.
            groups: positions of the groups to keep.
        """
        self.references.keep(rows, reduced)
        self.tracin.keep(groups)
