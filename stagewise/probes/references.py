"""The cached draws of earlier probes, as far back as later probes may need them."""

from typing import Any

from stagewise.influence.features import Features


class References:
    """Finds, for a probe at step t, the latest earlier probe at or before t / ratio."""

    def __init__(self, ratio: float) -> None:
        """Start without any probe; ``ratio`` is more than 1."""
        self._ratio = ratio
        self._kept: list[Features] = []

    def for_step(self, step: int) -> Features | None:
        """The reference of a probe at ``step``; None if there is none yet."""
        found = None
        for features in self._kept:
            if features.step <= step / self._ratio and features.step < step:
                found = features
        return found

    def add(self, features: Features) -> None:
        """Cache a probe, and forget those that no later probe can refer to."""
        current = self.for_step(features.step)
        oldest = -1 if current is None else current.step
        self._kept = [*(kept for kept in self._kept if kept.step >= oldest), features]

    def state_dict(self) -> list[dict[str, Any]]:
        """Tensors and plain Python."""
        return [features.state_dict() for features in self._kept]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """What :meth:`state_dict` saved."""
        self._kept = [Features.from_state_dict(features) for features in state]
