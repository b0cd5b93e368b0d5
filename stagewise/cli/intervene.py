"""``stagewise intervene``: does reweighting samples inside a window speed an induction head? Arms, seeds, intervals."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from stagewise.cli.settings_command import command_parser, read_settings
from stagewise.lm.data import SequenceData
from stagewise.studies.intervention.config import InterventionConfig
from stagewise.studies.intervention.report import write_report
from stagewise.studies.intervention.results import PARQUET_NAME, RESULTS_NAME, write_results
from stagewise.studies.intervention.study import run_cells
from stagewise.studies.intervention.table import results_markdown


def intervene_parser() -> ArgumentParser:
    """Returns the parser of the experiment's settings, from YAML and by name."""
    parser = command_parser("intervene", __doc__, config_help="a YAML file such as configs/intervention.yaml")
    # Parsed here, so that each of their settings can be overridden by name, and built anew for each cell.
    parser.add_subclass_arguments(LightningModule, "model", required=True, instantiate=False)
    parser.add_subclass_arguments(SequenceData, "data", required=True, instantiate=False)
    parser.add_class_arguments(InterventionConfig, skip={"model", "data"})
    return parser


def run_intervene(arguments: Sequence[str]) -> Path:
    """Parses arguments, runs the experiment, writes and prints its results.

    Args:
        arguments: ``intervene`` and its options.

    Returns:
        The folder with ``results.json``, the report and its figures.

    Raises:
        InputError: a setting is unusable.
        jsonargparse.ArgumentError: the configuration could not be parsed.
    """
    config = read_settings(InterventionConfig, intervene_parser(), arguments, described=["model", "data"])
    # Flushed: a study is long, and its output often a file.
    say = partial(print, flush=True)
    say(f"{len(config.seeds) * len(config.cells())} cells over {len(config.seeds)} seeds; a line for each that ends")
    cells = run_cells(config, say)
    output = Path(config.output)
    summary = write_results(output, config, cells)
    report = write_report(output, config, cells, summary)
    print()
    print(results_markdown(summary))
    print(f"\nWritten: {output / RESULTS_NAME}, {output / PARQUET_NAME}, {report}; for TensorBoard: {output / 'runs'}")
    return output
