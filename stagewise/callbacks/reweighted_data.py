"""The trainer's ReweightedLoader: lookup, checks, and connection to a plan."""

from lightning.pytorch import Trainer

from stagewise.callbacks.batch_numbers import BatchNumbers
from stagewise.errors import InputError
from stagewise.interventions.loader import ReweightedLoader, check_shard
from stagewise.interventions.supply import check_supply
from stagewise.interventions.weight_plan import Plan
from stagewise.interventions.weighted_deal import Exhausted


def refuse_distributed_sampler(trainer: Trainer) -> None:
    """Refuses sharding by Lightning, before it sets up the data.

    Raises:
        InputError: several processes with ``use_distributed_sampler``.
    """
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        raise InputError(
            f"got use_distributed_sampler=True with {trainer.world_size} processes; expected False: a distributed "
            "sampler draws the whole epoch at its start and sees no change of weights; set it in the Trainer"
        )


def find_loader(trainer: Trainer) -> ReweightedLoader:
    """Returns the loader of the training data.

    Raises:
        InputError: another class, or a loader in use by another intervention.
    """
    loader = trainer.train_dataloader
    if not isinstance(loader, ReweightedLoader):
        raise InputError(
            f"got a {type(loader).__name__} for training; expected a ReweightedLoader, whose order follows weights; "
            "write `from stagewise import ReweightedLoader` and, for `DataLoader(dataset, batch_size=32, "
            "shuffle=True)`, `ReweightedLoader(dataset, {'name': mask_over_samples}, batch_size=32)`"
        )
    if loader.weights_for is not None:
        raise InputError(
            "got a ReweightedLoader that has weights_for set; expected None: two interventions would overwrite each "
            "other; leave one out"
        )
    return loader


def follow_plan(trainer: Trainer, loader: ReweightedLoader, plan: Plan, *, max_steps: float) -> BatchNumbers:
    """Makes the loader sample according to a plan.

    Args:
        trainer: at the start of training, with the loader's state restored.
        loader: of the training data.
        plan: fixed or live.
        max_steps: optimizer steps of the run, infinite if unknown.

    Returns:
        Conversion between batches and steps.

    Raises:
        InputError: the loader has the wrong shards, another position than the trainer, or too few samples for the plan.
    """
    check_shard(
        loader,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        use_distributed_sampler=trainer._accelerator_connector.use_distributed_sampler,
    )
    numbers = BatchNumbers.of(trainer)
    if numbers.step(loader.served) != trainer.global_step:
        raise InputError(
            f"got a loader that has yielded {loader.served} batches in a run at step {trainer.global_step}; expected "
            f"{numbers.batches(trainer.global_step)}; start a run with a new loader, and resume one from a checkpoint "
            "that was trained on a ReweightedLoader with the same accumulation and batches an epoch"
        )
    weights_for = plan.by_batch(batches_per_step=numbers.per_step, batches_per_epoch=numbers.per_epoch)
    if plan.fixed and plan.changes and loader.batches.when_exhausted is Exhausted.refuse:
        # After the epoch of the last change nothing is replaced.
        epochs = plan.changes[-1].step // numbers.steps_per_epoch + 1
        check_supply(
            loader.strata,
            weights_for,
            batch_size=loader.batches.batch_size * trainer.world_size,
            seed=loader.batches.seed,
            num_batches=numbers.batches(int(min(max_steps, epochs * numbers.steps_per_epoch))),
            batches_per_epoch=numbers.per_epoch,
        )
    loader.weights_for = weights_for
    loader.batches.live = not plan.fixed
    return numbers
