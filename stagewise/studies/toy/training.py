"""Training of one toy run by Lightning, with the influence callback attached as in any other run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from stagewise.callbacks.influence import InfluenceCallback
from stagewise.studies.toy.config import ToyConfig
from stagewise.toy.data import HierarchyData
from stagewise.toy.descent import Weights
from stagewise.toy.module import DeepLinear


@dataclass(frozen=True)
class TrainedRun:
    """Finished run.

    Attributes:
        folder: of its event files, ``influence.zarr`` and ``summary.json``.
        initial: weights before training.
        final: weights after it.
    """

    folder: Path
    initial: Weights
    final: Weights


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's messages below warnings, since many runs share the terminal."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def build_module(config: ToyConfig, seed: int) -> DeepLinear:
    """Returns the network of a seed, untrained."""
    network = config.network
    return DeepLinear(
        num_items=len(config.hierarchy.items),
        num_properties=len(config.hierarchy.properties),
        hidden=network.hidden,
        init_std=network.init_std,
        lr=network.lr,
        seed=seed,
    )


def train(config: ToyConfig, seed: int, folder: Path) -> TrainedRun:
    """Trains one seed with the callback attached.

    Args:
        config: of the experiment.
        seed: of the initial weights; it is added to that of the chains.
        folder: for the run's files.
    """
    module = build_module(config, seed)
    initial = module.weights
    sgld = config.influence.sgld
    callback = InfluenceCallback(
        config.influence.schedule, replace(sgld, seed=sgld.seed + seed), config.influence.probe
    )
    with torch.random.fork_rng(), _quiet():
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            precision="64-true",
            max_steps=config.network.num_steps,
            callbacks=[callback],
            logger=TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=HierarchyData(config.hierarchy, config.network.num_steps))
    assert callback.folder is not None
    return TrainedRun(callback.folder, initial, module.weights)
