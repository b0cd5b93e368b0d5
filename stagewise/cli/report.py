"""``stagewise report RUN``: sign changes, curves, heat maps and scores of a run or a sweep, in words and pictures."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from stagewise.cli.settings_command import command_parser, parse
from stagewise.errors import InputError
from stagewise.files.writing import refuse_below_file
from stagewise.reporting.run_report import verdict_text, write_run_report
from stagewise.runs.store import STORE_NAME, open_run
from stagewise.runs.summary_file import summary_of

FOLDER_NAME = "report"


def report_parser() -> ArgumentParser:
    """The run and the settings."""
    parser = command_parser("report", __doc__, config_help="a YAML file with these settings")
    parser.add_argument("run", type=str, help="log directory of a run or output of a sweep, or its influence.zarr")
    parser.add_argument(
        "--chance",
        type=float,
        default=0.05,
        help="probability with which noise alone makes a sign change in a curve",
    )
    parser.add_argument(
        "--output", type=str | None, default=None, help=f"folder to write; {FOLDER_NAME} in the run's if not given"
    )
    return parser


def run_report(arguments: Sequence[str]) -> Path:
    """Parse, open the run, write and print.

    Args:
        arguments: ``report``, the run and its options.

    Returns:
        The folder with the report.

    Raises:
        InputError: there is no run, it has a single probe, or a setting is unusable.
        jsonargparse.ArgumentError: the options could not be parsed.
    """
    parsed = parse(report_parser(), arguments)
    given = Path(parsed.run)
    folder = given.parent if given.name == STORE_NAME else given
    output = Path(parsed.output) if parsed.output is not None else folder / FOLDER_NAME
    if output.exists() and not output.is_dir():
        raise InputError(f"got output={output}, which is a file; expected a folder; choose another --output")
    refuse_below_file(output)
    run = open_run(given)
    if run.sizes["step"] < 2:
        raise InputError(f"got {given} with a single probe; expected two or more: a report is of changes; probe more")
    report, changes = write_run_report(folder, run, output, chance=parsed.chance)
    print(verdict_text(run, summary_of(run)))
    print(f"\n{changes.markdown()}")
    print(f"\nWritten: {report}")
    return output
