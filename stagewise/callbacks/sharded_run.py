"""Runs with sharded weights: refusal of unsupported strategies and settings, and joint evaluation of the module."""

from dataclasses import replace

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from stagewise.callbacks.hosts import is_a
from stagewise.callbacks.ranks import Ranks
from stagewise.errors import InputError
from stagewise.isolation.shards import is_sharded
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.sharding import Sharding, check_shards

_REFUSED = ("FSDPStrategy", "DeepSpeedStrategy")


def refuse_sharding(trainer: Trainer) -> None:
    """Refuses strategies that shard the weights in another way than FSDP2.

    Raises:
        InputError: such a strategy.
    """
    if is_a(trainer.strategy, *_REFUSED):
        raise InputError(
            f"got {type(trainer.strategy).__name__}, which shards the weights into flat pieces; expected "
            "ModelParallelStrategy with torch.distributed.fsdp.fully_shard in configure_model, or a strategy that "
            "keeps weights whole (single device, DDP); set InfluenceCallback(enabled=False) to train without probes"
        )


def refuse_shards(trainer: Trainer, module: LightningModule, name: str) -> None:
    """Refuses sharded weights of any kind, for a callback that reads whole weights.

    Args:
        trainer: of the run.
        module: as the strategy has set it up.
        name: of the callback.

    Raises:
        InputError: the strategy shards the weights.
    """
    if is_a(trainer.strategy, *_REFUSED) or any(is_sharded(parameter) for parameter in module.parameters()):
        raise InputError(
            f"got {name} and {type(trainer.strategy).__name__}, which keeps weights in shards; expected whole weights "
            f"(single device, DDP), whose matrices it reads; leave {name} out"
        )


def sharding_of(module: LightningModule, ranks: Ranks, sgld: SGLDConfig, probe: ProbeConfig) -> Sharding | None:
    """Returns the joint evaluation of a sharded module by the ranks; None if each rank holds all weights.

    From then on all ranks run each chain together, instead of sharing the chains.

    Args:
        module: as the strategy has set it up.
        ranks: of the run; their share is replaced.
        sgld: the sampler.
        probe: the measurement.

    Raises:
        InputError: shards that chains cannot move, see :func:`~stagewise.sampling.sharding.check_shards`; or settings
            that need second derivatives.
    """
    if not any(is_sharded(parameter) for parameter in module.parameters()):
        return None
    check_shards(module, ranks.share.world_size)
    if "auto" in (sgld.lr, sgld.localization):
        raise InputError(
            f"got lr={sgld.lr} and localization={sgld.localization} with weights in shards, which have no second "
            "derivatives to resolve auto from; expected numbers; take those that `stagewise calibrate` finds for a "
            "model of the same family on one device"
        )
    if probe.damped_influence:
        raise InputError(
            "got damped_influence with weights in shards, which have no second derivatives; expected "
            "damped_influence=false; set it"
        )
    if probe.check_curvature:
        rank_zero_info("stagewise: weights are in shards, so settings are not checked against the curvature")
    share = ranks.share
    if not ranks.alone:
        share = replace(share, collect=lambda work: [work()] if share.is_first else _left_out(work()), together=True)
        ranks.share = share
    return Sharding(share.rank, share.world_size, ranks.meet, ranks.exchange)


def _left_out(found: object) -> None:
    """Discards a result that rank zero also has."""
