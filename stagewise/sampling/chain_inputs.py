"""Checks of the inputs of chains, before any chain runs."""

from torch import nn

from stagewise.batches import has_columns
from stagewise.errors import InputError
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.preconditioners.ekfac_checks import refuse_masks
from stagewise.sampling.sharded_weights import weights_of
from stagewise.sampling.target import Target


def check_chains(module: nn.Module, target: Target, config: SGLDConfig, engine: EngineName | None = None) -> Target:
    """Checks inputs before training starts; a later error would not end training, but the probes would be lost.

    Args:
        module: at the start of the chains.
        target: loss, data and selection of weights.
        config: the sampler; settings may still be ``auto``.
        engine: replaces the engine of the settings.

    Returns:
        The target with its selection, see :meth:`~stagewise.sampling.target.Target.moved_by`.

    Raises:
        InputError: no trainable parameter, a pattern that matches none, masks that do not fit or are combined with
            ``config.parameters`` or EK-FAC, parameters on several devices, or batches that the engine does not support.
    """
    target = target.moved_by(config)
    weights = weights_of(module, target)
    if target.sharding is not None:
        _check_sharded(config, engine)
    if isinstance(config.preconditioner, EKFAC):
        refuse_masks(weights.entries)
    graphs = _graphs(config, engine)
    if graphs and any(map(has_columns, (target.observed, target.driving))):
        raise InputError(
            f"got engine='{graphs}' and a batch with lists or arrays beside its tensors; expected tensors alone, "
            "which is all that a graph takes; set engine to sequential"
        )
    return target


def _check_sharded(config: SGLDConfig, engine: EngineName | None) -> None:
    if isinstance(config.preconditioner, EKFAC):
        raise InputError(
            "got preconditioner EKFAC and weights in shards; expected none, RMSprop or AdamMoments: its factors are of "
            "whole layers; choose another preconditioner"
        )
    graphs = _graphs(config, engine)
    if graphs is not None:
        raise InputError(
            f"got engine='{graphs}' and weights in shards; expected sequential: all processes run one chain; set "
            "engine to sequential"
        )


def _graphs(config: SGLDConfig, engine: EngineName | None) -> EngineName | None:
    """Returns the requested engine if it runs traced graphs, else None."""
    return next((name for name in (engine, config.engine) if name in (EngineName.batched, EngineName.compiled)), None)
