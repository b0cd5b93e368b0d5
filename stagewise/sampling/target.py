"""Target of a measurement: loss, observed set, sampling set, and the weights that move."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from torch import nn

from stagewise.batches import Batch, chunks
from stagewise.errors import InputError, require
from stagewise.losses.contract import Losses, LossFn, evaluate
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.selection import Selection, one_selection
from stagewise.sampling.sharding import Sharding

ForwardContext = Callable[[], AbstractContextManager]


@dataclass(frozen=True, eq=False)
class Target:
    """Common inputs of chains, baselines and curvature.

    Attributes:
        loss_fn: per-sample loss, see :mod:`stagewise.losses.contract`.
        observed: batch whose losses are recorded, on the module's device.
        sampling: batch for the stochastic gradients, on the same device; the observed one if None, see
            :attr:`driving`.
        selection: the weights that move, as patterns of parameter names or masks. All others stay at w* bit for bit,
            and quantities over weights are restricted to the selection. None for all trainable parameters.
        chunk_size: samples per forward pass over a whole set; all at once if None.
        forward_context: entered around each forward pass (autocast). It is left between passes, since autocast caches
            casts of the moving weights.
        sharding: processes that hold the module's weights in shards; None if each process holds all weights.

    Raises:
        InputError: ``chunk_size`` is below 1.
    """

    loss_fn: LossFn
    observed: Batch
    sampling: Batch | None = None
    selection: Selection = None
    chunk_size: int | None = None
    forward_context: ForwardContext = nullcontext
    sharding: Sharding | None = None

    def __post_init__(self) -> None:
        good = self.chunk_size is None or self.chunk_size >= 1
        require(good, "chunk_size", self.chunk_size, "an integer >= 1, or None for all at once", "8 is usual")

    @property
    def driving(self) -> Batch:
        """Sampling set, or the observed set if there is none."""
        return self.observed if self.sampling is None else self.sampling

    def moved_by(self, config: SGLDConfig) -> "Target":
        """Returns the target with the selection ``config.parameters``, unless it has one already.

        Raises:
            InputError: the selection differs from the parameters of the sampler.
        """
        if config.parameters is None or self.selection == config.parameters:
            return self
        if self.selection is None or isinstance(self.selection, Mapping):
            return replace(self, selection=one_selection(config.parameters, self.selection))
        raise InputError(
            f"got a target that moves {list(self.selection)} and a sampler with parameters={list(config.parameters)}; "
            "expected one of the two; set parameters to null"
        )

    def evaluate(self, module: nn.Module, batch: Batch) -> Losses:
        """Returns the losses of a batch at the module's weights."""
        with self.forward_context():
            return evaluate(self.loss_fn, module, batch)

    def observed_chunks(self) -> list[Batch]:
        """Returns the observed set in batches of ``chunk_size``."""
        return chunks(self.observed, self.chunk_size)
