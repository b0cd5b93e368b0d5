"""``stagewise sweep``: influence over the saved checkpoints of a causal language model."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from stagewise.cli.settings_command import OfTheCommand, command_parser, read_settings
from stagewise.files.json_input import read_json
from stagewise.runs.probe_files import SUMMARY_NAME
from stagewise.sweep.config import SweepConfig
from stagewise.sweep.ranks import agreed, joined_ranks
from stagewise.sweep.results import write_results
from stagewise.sweep.study import dry_run, prepare_sweep, run_cells

_DRY_RUN = "--dry-run"


def sweep_parser() -> ArgumentParser:
    """Returns the parser of the sweep's settings, from YAML and by name."""
    parser = command_parser("sweep", __doc__, config_help="a YAML file such as configs/pythia-14m.yaml")
    # Parsed here, so that each of its settings can be overridden by name, and built anew for each checkpoint.
    parser.add_subclass_arguments(LightningModule, "model", required=False, instantiate=False)
    parser.add_class_arguments(SweepConfig, skip={"model"})
    return parser


def run_sweep(arguments: Sequence[str]) -> Path:
    """Parses arguments, runs the sweep, writes and prints its results.

    Args:
        arguments: ``sweep`` and its options.

    Returns:
        The folder with the tables; with ``influence.zarr`` and ``summary.json`` if ``all`` is a component.

    Raises:
        InputError: unusable checkpoints, corpus or settings.
        jsonargparse.ArgumentError: the configuration could not be parsed.
    """
    parser = sweep_parser()
    parser.add_argument(_DRY_RUN, action=OfTheCommand, help="print cost and memory of a cell and stop; writes nothing")
    config = read_settings(SweepConfig, parser, arguments, described=["model"])
    with joined_ranks() as share:
        sweep = agreed(share, lambda: prepare_sweep(config, share))
        if _DRY_RUN in arguments:
            if share.is_first:
                print(dry_run(sweep))
            return Path(config.output)
        # Flushed: a sweep is long, and its output often a file.
        run_cells(sweep, partial(print, flush=True), share)
        if share.is_first:
            written = write_results(sweep)
            _print_verdict([path for path in written if path.name == SUMMARY_NAME])
            print(f"\nWritten: {', '.join(map(str, written))}")
    return Path(config.output)


def _print_verdict(summaries: Sequence[Path]) -> None:
    """Prints the verdict on the first component; the summaries of the others have theirs."""
    first = read_json(summaries[0], what="the summary of the sweep", advice="sweep again")
    more = f"; {len(summaries) - 1} more in summary.json of each" if len(summaries) > 1 else ""
    print(f"\nVerdict on component {first['sweep']['component']}{more}\n{first['verdict']['text']}")
