"""Target of the probes: the loss over the observed and the sampling set, on the module's device."""

from contextlib import nullcontext

from torch import nn

from stagewise.batches import to_device
from stagewise.losses.contract import LossFn
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.selection import Masks
from stagewise.sampling.sharding import Sharding
from stagewise.sampling.target import ForwardContext, Target


def target_of(
    module: nn.Module,
    loss_fn: LossFn,
    data: ProbeData,
    config: ProbeConfig,
    *,
    masks: Masks | None = None,
    forward_context: ForwardContext = nullcontext,
    sharding: Sharding | None = None,
) -> Target:
    """Returns the target of the probes: the sets on the module's device, in chunks.

    Args:
        module: module to probe; the device is that of its first parameter.
        loss_fn: per-sample loss.
        data: observed and sampling set.
        config: the measurement.
        masks: entries of parameters that move; None for those of the sampler.
        forward_context: entered around each forward pass (autocast).
        sharding: processes that hold the module's weights in shards; None if each holds all weights.
    """
    observed, sampling = to_device((data.observed, data.sampling), next(module.parameters()).device)
    return Target(loss_fn, observed, sampling, masks, config.chunk_size, forward_context, sharding)
