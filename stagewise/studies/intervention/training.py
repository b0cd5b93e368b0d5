"""Training and measurement of one cell: one arm of one seed."""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from stagewise.callbacks.induction import InductionCallback
from stagewise.callbacks.influence import InfluenceCallback
from stagewise.callbacks.intervention import InterventionCallback
from stagewise.errors import InputError
from stagewise.interventions.grouped_rows import GroupedRows
from stagewise.interventions.loader import ReweightedLoader
from stagewise.interventions.policy import ConstantFactor
from stagewise.interventions.window_sources import Live, Spans
from stagewise.isolation import untouched
from stagewise.jobs.building import build_data, build_module
from stagewise.lm.data import SequenceData
from stagewise.loading.order import seeded
from stagewise.runs.open import open_run
from stagewise.studies.intervention.arms import PROBED, UNWEIGHTED, Arm, Placed, place, spread_factor
from stagewise.studies.intervention.cell import Cell
from stagewise.studies.intervention.config import InterventionConfig
from stagewise.studies.intervention.measures import ablate_best_head, group_losses
from stagewise.studies.intervention.outcomes import Ablation, Curve
from stagewise.studies.intervention.recorder import Branches, Ending, ScoreRecorder, branch_point
from stagewise.studies.intervention.timeline import onset_step, peak_step

RANDOM_GROUP = "random"
"""Name of the group of random training samples, as many as the group of interest has."""

_RANDOM_STREAM = 5
"""Stream of the data seed that draws it; the data modules use 1 to 4."""

_OTHER_ORDER = 1_000_003
"""Added to the seed of the order in the arm ``placebo``."""

_FULL_DECLINE = 0.999
"""Close fraction of the arm ``live``: its window is as long as others, unless the signal is back on its plateau."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning and warnings, since many runs share the terminal; their folders have the results."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def grouped_loader(data: SequenceData, config: InterventionConfig, seed: int, arm: str) -> ReweightedLoader:
    """Returns the training data of a cell, with a group of random samples; equal for all arms except ``placebo``.

    Args:
        data: set up.
        config: of the experiment.
        seed: of the cell.
        arm: name of the arm.

    Raises:
        InputError: the data have no such group.
    """
    groups = dict(data.training_groups())
    if config.weights.group not in groups:
        raise InputError(
            f"got weights.group={config.weights.group!r}; expected one of {sorted(groups)}, the groups of the training "
            "sequences; correct the name"
        )
    mask = groups[config.weights.group]
    chosen = torch.randperm(len(mask), generator=seeded(seed, _RANDOM_STREAM))[: int(mask.sum())]
    groups[RANDOM_GROUP] = torch.zeros_like(mask)
    groups[RANDOM_GROUP][chosen] = True
    assert data.train_rows is not None
    order = seed + _OTHER_ORDER if arm == Arm.placebo else seed
    rows = GroupedRows(data.train_rows, groups)
    exhausted = config.training.when_exhausted
    return ReweightedLoader(rows, groups, data.batch_size, seed=order, when_exhausted=exhausted)


def _intervention(
    config: InterventionConfig, arm: str, mechanism: str, placed: Placed, loader: ReweightedLoader
) -> InterventionCallback | None:
    if arm in UNWEIGHTED:
        return None
    weights, group = config.weights, config.weights.group
    if arm == Arm.live:
        detector = replace(config.live.detector, max_length=weights.length, close_fraction=_FULL_DECLINE)
        live = Live(detector, config.live.signal, max_windows=1)
        return InterventionCallback(ConstantFactor({group: weights.factor}), live, mechanism=mechanism)
    assert placed.span is not None
    factor = weights.factor
    if arm == Arm.whole:
        factor = spread_factor(factor, loader.strata.share(group), length=weights.length, max_steps=placed.span.end)
    policy = ConstantFactor({RANDOM_GROUP if arm == Arm.random else group: factor})
    return InterventionCallback(policy, Spans([placed.span]), mechanism=mechanism)


def _timeline(folder: Path, config: InterventionConfig, curve: Curve, end: int) -> dict[str, int | None]:
    weights, group = config.weights, config.weights.observed_group
    found: dict[str, int | None] = {"end": end, **dict.fromkeys(("first_probe", "peak", "onset", "within_onset"))}
    if config.influence.enabled:
        run = open_run(folder)
        found["first_probe"] = int(run["step"].values[0])
        found["peak"] = peak_step(run, group, weights.onset.part)
        for name, onset in (("onset", weights.onset), ("within_onset", weights.within_onset)):
            found[name] = onset_step(run, group, onset.against, part=onset.part, ratio=onset.ratio)
    if weights.onset.by == "score":
        # The onset is then independent of the probes, and so never at the first of them.
        probed = {"influence_onset": found["onset"]} if config.influence.enabled else {}
        found |= {**probed, "first_probe": None, "onset": curve.step_at_score(weights.onset.level)}
    return found


def run_folder(output: Path, seed: int, name: str) -> Path:
    """Returns the folder of the event files of a cell, and of the probes of the arm ``none``."""
    return output / "runs" / f"seed-{seed}" / name


def checkpoint_folder(output: Path, seed: int) -> Path:
    """Returns the folder of the checkpoints that arms of a seed branch from."""
    return output / "checkpoints" / f"seed-{seed}"


def train_cell(
    config: InterventionConfig, seed: int, arm: str, mechanism: str, timeline: Mapping[str, int | None], folder: Path
) -> Cell:
    """Trains and measures one arm of one seed.

    Args:
        config: of the experiment.
        seed: of weights, data and order; it is added to that of the chains.
        arm: its name.
        mechanism: ``sampling`` or ``loss``; ``none`` for arms with weights of 1.
        timeline: of the arm ``none``; empty for that arm itself.
        folder: for the run's event files and probes.

    Raises:
        InputError: settings that a callback or the data refuse.
    """
    began = time.monotonic()
    training, weights = config.training, config.weights
    given = timeline.get("end")
    steps = given or training.max_steps
    placed = place(arm, timeline, length=weights.length, lead=weights.lead, max_steps=steps)
    empty = Cell(
        seed=seed,
        arm=arm,
        mechanism=mechanism,
        windows=(),
        note=placed.note,
        max_steps=training.max_steps,
        end=steps,
        curve=None,
        final_losses={},
        ablation=None,
        moved=0.0,
        branched_at=0,
        seconds=0.0,
        timeline={},
    )
    if not placed.possible:
        return empty
    checkpoints = checkpoint_folder(Path(config.output), seed)
    branch, branched_at = (None, 0) if placed.span is None else branch_point(checkpoints, placed.span.start)
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        module = build_module(config.model)
        # Without probes the observed sequences are those of the measurement: text is read only once.
        observed = None if config.influence.enabled else training.num_evaluation
        data = build_data(config.data, seed=seed, num_observed=observed)
        data.setup("fit")
        loader = grouped_loader(data, config, seed, arm)
        intervention = _intervention(config, arm, mechanism, placed, loader)
        induction = InductionCallback(every_n_steps=training.measure_every)
        recorder = ScoreRecorder(
            training.measure_every, score_threshold=training.score_threshold, gap_threshold=training.gap_threshold
        )
        evaluated = data if observed else build_data(config.data, seed=seed, num_observed=training.num_evaluation)
        held_out = evaluated.probe_data()
        losses: dict[str, float] = {}
        ablations: list[Ablation] = []

        def measure() -> None:
            with untouched(module):
                losses.update(group_losses(module, held_out))
                scores, loss = induction.tables["prefix_matching"], losses[weights.observed_group]
                ablations.append(ablate_best_head(module, held_out, scores, group=weights.observed_group, loss=loss))

        ending = Ending(recorder, measure, max_steps=training.max_steps, settle_steps=training.settle_steps, end=given)
        callbacks: list[pl.Callback] = [induction, recorder, ending]
        if arm in PROBED and config.influence.enabled:
            sgld = config.influence.sgld
            probe_data = data.probe_data()
            callbacks.append(
                InfluenceCallback(
                    config.influence.schedule,
                    replace(sgld, seed=sgld.seed + seed),
                    config.influence.probe,
                    observed=probe_data.observed,
                    sampling=probe_data.sampling,
                    groups=probe_data.groups,
                )
            )
        callbacks += [] if intervention is None else [intervention]
        if arm == Arm.none and training.branch_every:
            callbacks.append(Branches(checkpoints, training.branch_every))
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=training.max_steps,
            gradient_clip_val=training.gradient_clip_val,
            callbacks=callbacks,
            logger=TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False),
            log_every_n_steps=training.measure_every,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(module, train_dataloaders=loader, ckpt_path=branch)
    assert ending.end is not None
    plan = None if intervention is None else intervention.plan
    return replace(
        empty,
        windows=() if plan is None else tuple((span.start, span.end) for span in plan.spans(until=ending.end)),
        end=ending.end,
        curve=recorder.curve,
        final_losses=losses,
        ablation=ablations[0],
        moved=0.0 if plan is None else plan.budget(loader.strata, end=ending.end).moved,
        branched_at=branched_at,
        seconds=time.monotonic() - began,
        timeline=_timeline(folder, config, recorder.curve, ending.end) if arm == Arm.none else {},
    )
