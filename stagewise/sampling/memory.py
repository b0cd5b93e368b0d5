"""Memory of the chains on their device: copies of the weights, and tensors that passes hold."""

from dataclasses import dataclass

import torch
from torch import nn

from stagewise.batches import num_samples, take
from stagewise.isolation import untouched
from stagewise.sampling.config import Drift, Integrator, SGLDConfig
from stagewise.sampling.gradients import KEPT_BYTES
from stagewise.sampling.streams import num_noises_ahead
from stagewise.sampling.target import Target

_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class ChainMemory:
    """Peak memory of chains that run one after the other, GiB, whatever the number of chains and draws.

    Attributes:
        module: the module's own weights.
        weights: tensors that last while a chain runs: w*, the chain's weights, the noise of this step and, with the
            second-order integrator, of the last.
        gradient: gradients while the heat of minibatches is measured: of the step, of the observed losses, and the
            next estimate, both by parameter and as one vector.
        kept: gradients at w*, of each minibatch and their mean; if these are too large, one of them, with the chain's
            weights while the module is at w*; 0 with ``drift: plain``.
        passes: tensors that the forward pass of a minibatch saves for the backward pass.
    """

    module: float
    weights: float
    gradient: float
    kept: float
    passes: float

    @property
    def total(self) -> float:
        """Memory at the peak: a pass ends before its gradient becomes one vector."""
        return self.module + self.weights + self.kept + max(self.gradient, self.gradient / 2 + self.passes)


def chain_memory(
    config: SGLDConfig,
    *,
    num_weights: int,
    pass_bytes: float,
    num_sampling: int,
    num_parameters: int | None = None,
    module_bytes: int = 4,
) -> ChainMemory:
    """Returns the memory of the chains of the sequential engine.

    Args:
        config: the sampler; integrator and drift matter.
        num_weights: number of weights that the chains move; their copies are float32, whatever the module's precision.
        pass_bytes: see :func:`pass_bytes`.
        num_sampling: samples of the sampling set.
        num_parameters: of the module; ``num_weights`` if None.
        module_bytes: bytes of each of its parameters.
    """
    copies = 2 + num_noises_ahead(num_weights) + int(config.integrator is Integrator.leimkuhler_matthews)
    # Leaves in the module's own precision, to which the chain's weights are copied.
    leaves = module_bytes if module_bytes < 4 else 0
    vector = 4 * num_weights
    kept = vector * -(-num_sampling // config.batch_size) + vector
    if config.drift is Drift.plain or config.batch_size >= num_sampling:
        kept = 0
    elif kept - vector > KEPT_BYTES:
        kept = (2 if config.drift is Drift.tilted else 3) * vector
    return ChainMemory(
        module=module_bytes * (num_weights if num_parameters is None else num_parameters) / _GIB,
        weights=(vector * copies + leaves * num_weights) / _GIB,
        gradient=4 * vector / _GIB,
        kept=kept / _GIB,
        passes=pass_bytes / _GIB,
    )


def pass_bytes(module: nn.Module, target: Target, batch_size: int) -> float:
    """Estimates the bytes that autograd holds for the backward pass of a minibatch, in proportion to its size.

    They are counted in one forward pass of one or two samples: each storage once, without parameters and buffers, plus
    twice the largest (usually the logits), for its gradient and the gradient from which that is computed.

    Args:
        module: in train or eval mode, on any device; restored.
        target: loss and data.
        batch_size: of the minibatches.
    """
    own = {value.untyped_storage().data_ptr() for value in (*module.parameters(), *module.buffers())}
    held: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    rows = min(2, batch_size, num_samples(target.driving))
    with (
        untouched(module),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(note, lambda held_back: held_back),
    ):
        target.evaluate(module, take(target.driving, slice(0, rows))).mean()
    largest = max(held.values(), default=0)
    return (sum(held.values()) + 2 * largest) / rows * min(batch_size, num_samples(target.driving))
