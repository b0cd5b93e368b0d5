"""``stagewise report RUN [RUN ...]``: results of a run, or comparison of several, as one HTML file and as Markdown."""

import os
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from stagewise.cli.settings_command import command_parser, parse
from stagewise.errors import InputError
from stagewise.files.progress import stages
from stagewise.files.writing import refuse_below_file
from stagewise.reporting.html.report import FOLDER_NAME, HTML_NAME, OpenedRun, write_html_report
from stagewise.reporting.run_report import draw_run, verdict_text, write_run_report
from stagewise.reporting.scores import read_scores
from stagewise.reporting.spans_table import BESIDE_SIGN_CHANGES, SPANS_TITLE, spans_table
from stagewise.runs.open import open_run
from stagewise.runs.probe_files import STORE_NAME


def report_parser() -> ArgumentParser:
    """Returns the parser of the runs and the settings."""
    parser = command_parser("report", __doc__, config_help="a YAML file with these settings")
    parser.add_argument(
        "run",
        type=str,
        nargs="+",
        help="log directory of a run or output of a sweep, or its influence.zarr; several are compared: seeds laid "
        "over each other, runs with other settings as arms",
    )
    parser.add_argument(
        "--chance",
        type=float,
        default=0.05,
        help="probability with which noise alone makes a sign change in a curve",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help=f"folder to write; {FOLDER_NAME} in the run's, or in the one that all runs are in, if not given",
    )
    return parser


def run_report(arguments: Sequence[str]) -> Path:
    """Parses arguments, opens the runs, writes the report and prints its path.

    Args:
        arguments: ``report``, the runs and options.

    Returns:
        The folder with the report.

    Raises:
        InputError: no run, a run with a single probe or named twice, or an unusable setting.
        jsonargparse.ArgumentError: the options could not be parsed.
    """
    parsed = parse(report_parser(), arguments)
    given = [Path(name) for name in parsed.run]
    folders = [path.parent if path.name == STORE_NAME else path for path in given]
    places = [os.path.abspath(folder) for folder in folders]
    twice = sorted({str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1})
    if twice:
        raise InputError(f"got {', '.join(twice)} more than once; expected runs that differ; name each once")
    above = folders[0] if len(folders) == 1 else Path(os.path.commonpath([os.path.dirname(place) for place in places]))
    output = Path(parsed.output) if parsed.output is not None else above / FOLDER_NAME
    if output.exists() and not output.is_dir():
        raise InputError(f"got output={output}, which is a file; expected a folder; choose another --output")
    refuse_below_file(output)
    runs = [OpenedRun.of(folder, open_run(path)) for folder, path in zip(folders, given, strict=True)]
    for path, item in zip(given, runs, strict=True):
        if item.data.sizes["step"] < 2:
            raise InputError(
                f"got {path} with a single probe; expected two or more: a report is of changes; probe more"
            )
    if len(runs) > 1:
        with stages(1) as stage:
            stage.begin(f"comparing {len(runs)} runs")
            page = write_html_report(output / HTML_NAME, runs, chance=parsed.chance)
    else:
        page = _write_both(runs[0], output, parsed.chance)
    print(f"Report:       {page}")
    return output


def _write_both(one: OpenedRun, output: Path, chance: float) -> Path:
    """Writes and prints the Markdown report of a run, then its page; returns the path of that."""
    with stages(3) as stage:
        stage.begin("drawing figures")
        figures, scores = draw_run(one.data), read_scores(one.folder)
        stage.begin("looking for changes of sign")
        report, changes = write_run_report(one.folder, one.data, output, chance=chance, figures=figures, scores=scores)
        stage.begin("writing the page")
        page = write_html_report(
            output / HTML_NAME, [one], chance=chance, changes=changes, figures=figures, scores=scores
        )
    print(verdict_text(one.data))
    spans = spans_table(one.data)
    if spans is not None:
        print(f"\n{SPANS_TITLE}: {spans.words[0]}")
    beside = f"\n\n{BESIDE_SIGN_CHANGES}" if spans is not None and spans.rows else ""
    print(f"\n{changes.markdown()}{beside}\n\nMarkdown:     {report}")
    return page
