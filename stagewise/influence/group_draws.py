"""Draws reduced to the features that the split needs, small enough for later probes and checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from stagewise.influence.groups import Groups
from stagewise.sampling.trace import Trace

Array = NDArray[np.float64]


class Reducer:
    """Reducer of the losses of each draw, passed to the chains as ``reduce``: no token trace is kept.

    Sums are float64, since a sum over a sequence is hundreds of times larger than its change between draws. All groups
    of all samples are one batched product; masks take 8 bytes per group and loss.
    """

    def __init__(self, groups: Groups) -> None:
        """Prepares the masks of whole samples, and of ``groups`` within samples."""
        everything = np.ones_like(groups.masks[:1])
        self._weights = torch.from_numpy(np.concatenate([everything, groups.masks])).double()
        self._has_tokens = groups.masks.ndim == 3
        if self._has_tokens:
            self._weights = self._weights.transpose(0, 1).contiguous()  # [sample, 1 + group, token]

    def __call__(self, losses: Tensor) -> Tensor:
        """Sums over samples and groups.

        Args:
            losses: ``[..., sample]`` or ``[..., sample, token]``, nats, zero where masked; on any device.

        Returns:
            ``[..., 1 + group, sample]``, nats, float64: the whole sample, then each group.
        """
        if self._weights.device != losses.device:
            self._weights = self._weights.to(losses.device)
        values = losses.detach().double()
        if self._has_tokens:
            return torch.einsum("...nt,ngt->...gn", values, self._weights)
        return values.unsqueeze(-2) * self._weights


@dataclass(frozen=True)
class GroupDraws:
    """Draws of one probe, reduced to samples and to groups within samples; nats.

    Attributes:
        step: training step.
        chains: numbers of the chains, in the order of the first axis.
        samples: ``[chain, draw, sample]``.
        groups: ``[chain, draw, group * sample]``.
        equilibrated: True if the chains have reached equilibrium, by their diagnostics; None without a check.
    """

    step: int
    chains: tuple[int, ...]
    samples: Array
    groups: Array
    equilibrated: bool | None = None

    @classmethod
    def of(cls, trace: Trace, groups: Groups) -> "GroupDraws":
        """Reduces a trace, or uses its features if a :class:`Reducer` of the same groups made them."""
        if trace.reduced is not None:
            return cls.from_reduced(trace.step, trace.chains, trace.reduced)
        reduce = Reducer(groups)
        rows = np.stack([reduce(torch.from_numpy(loss)).numpy() for loss in trace.loss])
        return cls.from_reduced(trace.step, trace.chains, rows)

    @classmethod
    def from_reduced(cls, step: int, chains: tuple[int, ...], rows: Array) -> "GroupDraws":
        """Creates draws from the output ``[chain, draw, 1 + group, sample]`` of a :class:`Reducer`, nats."""
        whole = rows.astype(np.float64, copy=False)
        return cls(step, chains, whole[:, :, 0].copy(), whole[:, :, 1:].reshape(*whole.shape[:2], -1))

    def only(self, chains: tuple[int, ...]) -> "GroupDraws":
        """Returns the draws of some of the chains."""
        rows = [self.chains.index(chain) for chain in chains]
        return GroupDraws(self.step, chains, self.samples[rows], self.groups[rows], self.equilibrated)

    def part(self, samples: ArrayLike, groups: ArrayLike) -> "GroupDraws":
        """Returns the draws of some samples and some groups.

        Args:
            samples: positions ``[kept]`` of samples.
            groups: positions ``[kept]`` among the groups to which the draws were reduced.
        """
        shape = (*self.samples.shape[:2], -1, self.samples.shape[2])
        rows, columns = np.asarray(groups, dtype=np.int64), np.asarray(samples, dtype=np.int64)
        kept = self.groups.reshape(shape)[:, :, rows][..., columns].reshape(*shape[:2], -1)
        return GroupDraws(self.step, self.chains, self.samples[..., columns], kept, self.equilibrated)

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain Python objects, for checkpoints opened with ``weights_only=True``."""
        return {
            "step": self.step,
            "chains": list(self.chains),
            "samples": torch.from_numpy(self.samples),
            "groups": torch.from_numpy(self.groups),
            "equilibrated": self.equilibrated,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "GroupDraws":
        """Restores draws saved by :meth:`state_dict`."""
        return cls(
            state["step"],
            tuple(state["chains"]),
            state["samples"].numpy(),
            state["groups"].numpy(),
            state.get("equilibrated"),  # missing in checkpoints of earlier versions
        )
