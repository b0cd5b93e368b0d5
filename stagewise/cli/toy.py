"""``stagewise toy``: influence in a deep linear network, from chains and by methods that share no code with them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser

from stagewise.cli.settings_command import command_parser, read_settings
from stagewise.files.writing import refuse_below_file
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.report import write_report
from stagewise.studies.toy.study import run_seeds
from stagewise.studies.toy.table import validation_table
from stagewise.studies.toy.validation import (
    FLIPS_NAME,
    VALIDATION_NAME,
    summarize,
    write_flips,
    write_validation,
)


def toy_parser() -> ArgumentParser:
    """Returns the parser of the experiment's settings, from YAML and by name."""
    parser = command_parser("toy", __doc__, config_help="a YAML file such as configs/toy.yaml")
    parser.add_class_arguments(ToyConfig)
    return parser


def run_toy(arguments: Sequence[str]) -> Path:
    """Parses arguments, runs the experiment, writes and prints its results.

    Args:
        arguments: ``toy`` and its options.

    Returns:
        The folder with ``validation.json``, the report and its figures.

    Raises:
        InputError: a setting is unusable.
        jsonargparse.ArgumentError: the configuration could not be parsed.
    """
    config = read_settings(ToyConfig, toy_parser(), arguments)
    refuse_below_file(Path(config.output))
    # Flushed: a study is long, and its output often a file.
    say = partial(print, flush=True)
    say(f"{len(config.seeds)} seeds, each in two parts; a line for each part that ends")
    results = run_seeds(config, say)
    output = Path(config.output)
    write_validation(output / VALIDATION_NAME, results, config)
    write_flips(output / FLIPS_NAME, results)
    report = write_report(output, results, config)
    print()
    print(validation_table(summarize(results)))
    print(f"\nWritten: {output / VALIDATION_NAME}, {output / FLIPS_NAME}, {report}; for TensorBoard: {output}")
    return output
