"""Parsers of all commands, built without running them."""

from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from stagewise.cli.calibrate import CalibrationCLI, CalibrationTrainer
from stagewise.cli.commands import COMMANDS
from stagewise.cli.detect import detect_parser
from stagewise.cli.intervene import intervene_parser
from stagewise.cli.report import report_parser
from stagewise.cli.sweep import sweep_parser
from stagewise.cli.toy import toy_parser
from stagewise.cli.training import StagewiseCLI, ValidateCLI, cli_settings


class _Built(Exception):
    """Stops a Lightning command line once its parsers are built."""

    def __init__(self, parsers: dict[str, ArgumentParser]) -> None:
        self.parsers = parsers


def _stop_before_parsing(line: StagewiseCLI, parser: Any, args: Any) -> None:
    raise _Built({name: line._parser(name) for name in line.subcommands()})


def _lightning_parsers(kind: type[StagewiseCLI], trainer: type[Trainer]) -> dict[str, ArgumentParser]:
    stopped = type(kind.__name__, (kind,), {"parse_arguments": _stop_before_parsing})
    try:
        stopped(LightningModule, LightningDataModule, trainer_class=trainer, **cli_settings())
    except _Built as built:
        return built.parsers
    raise AssertionError("a command line was not stopped before it parsed")


def all_parsers() -> dict[str, ArgumentParser]:
    """Returns the parsers by command, in the order of the help."""
    found = {
        **_lightning_parsers(StagewiseCLI, Trainer),
        **_lightning_parsers(ValidateCLI, Trainer),
        **_lightning_parsers(CalibrationCLI, CalibrationTrainer),
        "detect": detect_parser(),
        "intervene": intervene_parser(),
        "report": report_parser(),
        "sweep": sweep_parser(),
        "toy": toy_parser(),
    }
    return {name: found[name] for name in COMMANDS}
