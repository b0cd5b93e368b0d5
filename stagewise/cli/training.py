"""``stagewise fit`` and ``stagewise validate``: Lightning's own command line with the influence callback attached."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from stagewise.callbacks.influence import InfluenceCallback
from stagewise.cli.help import show_help
from stagewise.cli.settings_command import prepare
from stagewise.cli.suggestions import unknown_setting
from stagewise.errors import require
from stagewise.reporting.html.report import FOLDER_NAME, HTML_NAME
from stagewise.reporting.overview_files import OVERVIEW_NAME
from stagewise.runs.probe_files import STORE_NAME


class StagewiseCLI(LightningCLI):
    """Any LightningModule and LightningDataModule by ``class_path``; the callback's settings under ``influence``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Gives the callback its own section, so that each of its settings can be overridden by name."""
        parser.add_lightning_class_args(InfluenceCallback, "influence")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses as Lightning does, and refuses a seed that its generators would reject later.

        Raises:
            InputError: ``seed_everything`` is below 0, or 2^32 or more; or an unknown setting.
        """
        show_help(self._parser(args[0]), args)
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            unknown = unknown_setting(error, self._parser(args[0]), args[0])
            if unknown is None:
                raise
            raise unknown from error
        seed = (self.config.get(self.config.get("subcommand")) or self.config).get("seed_everything")
        good = seed is None or isinstance(seed, bool) or 0 <= seed < 2**32
        require(good, "seed_everything", seed, "0 to 4294967295, or true for any", "42 will do")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the command that trains."""
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}


class ValidateCLI(StagewiseCLI):
    """Command line of ``validate``: separate, since a parser of the Trainer is slow to build."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the command that runs the validation loop."""
        return {"validate": {"model", "dataloaders", "datamodule"}}


def cli_settings() -> dict[str, Any]:
    """Returns the settings with which all commands read models and data, and treat errors."""
    return {
        "subclass_mode_model": True,
        "subclass_mode_data": True,
        "parser_kwargs": {"exit_on_error": False, "allow_abbrev": False},
    }


def run_trainer(arguments: Sequence[str], callbacks: Sequence[Callback] = ()) -> Any:
    """Parses arguments, builds and runs the Trainer.

    Args:
        arguments: the command (``fit`` or ``validate``) and its options.
        callbacks: added to those of the configuration.

    Returns:
        The command line object, with ``trainer``, ``model`` and ``datamodule``.

    Raises:
        InputError: a setting is unusable.
        jsonargparse.ArgumentError: the configuration could not be parsed.
    """
    prepare(arguments)
    line = (ValidateCLI if arguments[0] == "validate" else StagewiseCLI)(
        LightningModule,
        LightningDataModule,
        # A run resumed in its own directory writes its configuration again.
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": list(callbacks)},
        args=list(arguments),
        **cli_settings(),
    )
    if arguments[0] == "fit" and line.trainer.is_global_zero and line.trainer.log_dir is not None:
        for words in where_to_look(Path(line.trainer.log_dir)):
            print(words)
    return line


def where_to_look(folder: Path) -> list[str]:
    """Returns lines with the overview of a run, its report and the TensorBoard command; none without a probe.

    Args:
        folder: of the run.
    """
    if not (folder / STORE_NAME).is_dir():
        return []
    lines = [f"Overview:     {folder / OVERVIEW_NAME}"] if (folder / OVERVIEW_NAME).is_file() else []
    report = folder / FOLDER_NAME / HTML_NAME
    lines.append(f"Report:       {report if report.is_file() else f'stagewise report {shlex.quote(str(folder))}'}")
    if list(folder.glob("events.out.tfevents.*")):
        lines.append(f"TensorBoard:  tensorboard --logdir {shlex.quote(str(folder.parent))} --host 127.0.0.1")
    return lines
