"""``stagewise fit`` and ``stagewise validate``: Lightning's own command line with the influence callback attached."""

import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from stagewise.callbacks.influence import InfluenceCallback
from stagewise.errors import InputError


class StagewiseCLI(LightningCLI):
    """Any LightningModule and LightningDataModule by ``class_path``; the callback's settings under ``influence``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Give the callback a section of its own, so that each of its settings can be overridden by name."""
        parser.add_lightning_class_args(InfluenceCallback, "influence")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The two commands that need a Trainer."""
        skipped = {"model", "dataloaders", "datamodule"}
        return {"fit": skipped | {"train_dataloaders", "val_dataloaders"}, "validate": skipped}


def _check_config_files(arguments: Sequence[str]) -> None:
    """Refuse missing files by name: jsonargparse would answer with the usage of the whole command."""
    for flag, value in pairwise(arguments):
        if flag in ("-c", "--config") and not Path(value).is_file():
            raise InputError(f"got -c {value}, which is no file; expected a YAML file such as configs/induction.yaml")


def prepare(arguments: Sequence[str]) -> None:
    """Refuse what can be refused before parsing, and show what stagewise says while it works.

    Raises:
        InputError: no configuration, or one that is no file.
    """
    _check_config_files(arguments)
    configured = any(it.startswith(("-c", "--config")) for it in arguments)
    if not configured and not {"-h", "--help", "--print_config"} & set(arguments):
        raise InputError(f"got no configuration; expected stagewise {arguments[0]} -c FILE; see configs/")
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)


def cli_settings() -> dict[str, Any]:
    """How all commands read models, data and mistakes."""
    return {
        "subclass_mode_model": True,
        "subclass_mode_data": True,
        "parser_kwargs": {"exit_on_error": False},
    }


def run_trainer(arguments: Sequence[str], callbacks: Sequence[Callback] = ()) -> Any:
    """Parse, build and run.

    Args:
        arguments: the command (``fit`` or ``validate``) and its options.
        callbacks: further ones, beside those of the configuration.

    Returns:
        The command line object, with ``trainer``, ``model`` and ``datamodule``.

    Raises:
        InputError: a setting is unusable.
        jsonargparse.ArgumentError: the configuration could not be parsed.
    """
    prepare(arguments)
    return StagewiseCLI(
        LightningModule,
        LightningDataModule,
        # A run resumed in its own directory writes its configuration again.
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": list(callbacks)},
        args=list(arguments),
        **cli_settings(),
    )
