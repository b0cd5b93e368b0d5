"""Check before the first cell that the data of the experiment suffice for all seeds and windows."""

from stagewise.errors import InputError
from stagewise.interventions.supply import check_supply
from stagewise.jobs.building import build_data
from stagewise.studies.intervention.arms import UNWEIGHTED, Arm
from stagewise.studies.intervention.config import InterventionConfig
from stagewise.studies.intervention.training import RANDOM_GROUP, grouped_loader

_MARGIN = 1.1
"""Safety factor on the length of the window to supply: the windows of cells differ, and draw other samples."""


def check_data(config: InterventionConfig) -> None:
    """Draws the order of each seed, without loading samples, with a window where the data are nearly used up.

    Args:
        config: of the experiment.

    Raises:
        InputError: unknown group, or a sample would be used twice although it must not; the message has the available
            and the needed number.
    """
    steps, weights = config.training.max_steps, config.weights
    start = max(0, steps - round(_MARGIN * weights.length))
    weighted = [arm for arm, mechanism in config.cells() if mechanism == "sampling" and arm not in UNWEIGHTED]
    groups = [weights.group] if any(arm != Arm.random for arm in weighted) else []
    groups += [RANDOM_GROUP] if Arm.random in weighted else []
    repeat = config.training.when_exhausted == "repeat"
    for seed in config.seeds[:1] if repeat else config.seeds:
        data = build_data(config.data, seed=seed)
        loader = grouped_loader(data, config, seed, str(Arm.none))
        if repeat:
            continue
        if len(loader) < steps:
            raise InputError(
                f"got data for {len(loader)} steps; expected enough for training.max_steps={steps}, so that no sample "
                "comes twice; raise data.init_args.num_sequences, or set training.when_exhausted=repeat"
            )
        even = dict.fromkeys(loader.strata.names, 1.0)
        for group in groups:
            inside = {**even, group: weights.factor}
            try:
                check_supply(
                    loader.strata,
                    lambda number, inside=inside, even=even: inside if number >= start else even,  # type: ignore[misc]
                    batch_size=loader.batches.batch_size,
                    seed=loader.batches.seed,
                    num_batches=steps,
                )
            except InputError as error:
                had = str(error).split(";")[0]
                raise InputError(
                    f"{had}, with a window at the end of training.max_steps={steps} (seed {seed}); expected a fresh "
                    "sample for every draw; raise data.init_args.num_sequences, or lower training.max_steps"
                ) from error
