"""The part of a trace that the split needs, small enough to keep for later probes and in checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stagewise.influence.groups import Groups
from stagewise.sampling.trace import Trace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """Draws of one probe, reduced to samples and to groups within samples; nats.

    Attributes:
        step: training step.
        chains: numbers of the chains, in the order of the first axis.
        samples: ``[chain, draw, sample]``.
        groups: ``[chain, draw, group * sample]``.
    """

    step: int
    chains: tuple[int, ...]
    samples: Array
    groups: Array

    @classmethod
    def of(cls, trace: Trace, groups: Groups) -> "Features":
        """Reduce a trace."""
        return cls(trace.step, trace.chains, trace.sample_losses(), groups.sums(trace.loss))

    def only(self, chains: tuple[int, ...]) -> "Features":
        """The same draws of some of the chains."""
        rows = [self.chains.index(chain) for chain in chains]
        return Features(self.step, chains, self.samples[rows], self.groups[rows])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python, as checkpoints opened with ``weights_only=True`` need."""
        return {
            "step": self.step,
            "chains": list(self.chains),
            "samples": torch.from_numpy(self.samples),
            "groups": torch.from_numpy(self.groups),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "Features":
        """What :meth:`state_dict` saved."""
        return cls(state["step"], tuple(state["chains"]), state["samples"].numpy(), state["groups"].numpy())
