"""``stagewise intervene``: does reweighting samples inside a window speed an induction head? Arms, seeds, intervals."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser

from stagewise.cli.training import prepare
from stagewise.experiments.intervention.config import InterventionConfig
from stagewise.experiments.intervention.study import run_cells


def intervene_parser() -> ArgumentParser:
    """Settings of the experiment, from YAML and by name."""
    parser = ArgumentParser(prog="stagewise intervene", exit_on_error=False, description=__doc__)
    parser.add_argument("-c", "--config", action="config", help="a YAML file such as configs/intervention.yaml")
    parser.add_class_arguments(InterventionConfig)
    return parser


def run_intervene(arguments: Sequence[str]) -> Path:
    """Parse, run, write and print.

    Args:
        arguments: ``intervene`` and its options.

    Returns:
        The folder with ``results.json``, the report and its figures.

    Raises:
        InputError: a setting is unusable.
        jsonargparse.ArgumentError: the configuration could not be parsed.
    """
    prepare(arguments)
    parser = intervene_parser()
    parsed = parser.parse_args(list(arguments[1:]))
    values = parser.instantiate_classes(parsed).as_dict()
    values.pop("config")
    config = InterventionConfig(**values)
    # Flushed: a study is long, and its output often a file.
    run_cells(config, partial(print, flush=True))
    return Path(config.output)
