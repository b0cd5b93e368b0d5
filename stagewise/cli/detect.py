"""``stagewise detect``: the transition windows of a finished run, with the evidence for them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xarray as xr
from jsonargparse import ArgumentParser

from stagewise._version import __version__
from stagewise.checks.counted import counted
from stagewise.cli.settings_command import command_parser, parse
from stagewise.errors import InputError
from stagewise.files.writing import refuse_below_file, write_json
from stagewise.phases.detection import detect
from stagewise.phases.no_window import why_no_window
from stagewise.phases.offline import MIN_PROMINENCE
from stagewise.phases.online_detector import DetectorConfig, Direction
from stagewise.phases.signal import Kind, Signal
from stagewise.phases.signal_table import signal_table
from stagewise.phases.stage_boundaries import StageBoundary, boundaries_above_zero, stage_boundaries
from stagewise.phases.window import Window
from stagewise.reporting.stage_boundaries import boundary_records, boundary_table, not_shown_lines
from stagewise.reporting.windows import transitions, window_record, window_table
from stagewise.runs.open import open_run
from stagewise.runs.probe_files import STORE_NAME
from stagewise.runs.summary_file import summary_of

WINDOWS_NAME = "windows.json"

_LEGEND = """Significance: height over its standard error; - where none is known. Critical samples: change of their mean
loss since the reference probe, at the peak, nats; negative = learnt. Off segment: how far losses leave the
straight way between the window's two phases, at most, over its length."""


def detect_parser() -> ArgumentParser:
    """Returns the parser of the run and the settings of both detectors."""
    parser = command_parser("detect", __doc__, config_help="a YAML file with these settings")
    parser.add_argument("run", type=str, help="log directory of a run, or its influence.zarr")
    parser.add_argument(
        "--signal",
        type=list[str] | str | None,
        default=None,
        help="signals to look at, one or [a,b], and contrast/A~B; offline between and losses_alone, online all, if "
        "not given. For llc and llc/<group> these are stage boundaries: where the learning coefficient turns",
    )
    parser.add_argument(
        "--pairs",
        type=list[str] | str | None,
        default=None,
        help="group influences in the table, A~B or [A~B,C~D]; each group with itself if not given",
    )
    parser.add_argument(
        "--min_prominence",
        type=float | None,
        default=None,
        help=f"offline: least prominence of a peak, as a fraction of the largest value; that of the run, or "
        f"{MIN_PROMINENCE}, if not given",
    )
    parser.add_argument(
        "--chance",
        type=float,
        default=0.05,
        help="probability with which noise alone makes a stage boundary in a learning coefficient",
    )
    parser.add_argument(
        "--online",
        action="store_true",
        help="also what the online detector would have found while the run went on",
    )
    # The direction is that of each signal.
    parser.add_class_arguments(DetectorConfig, "detector", skip={"direction"})
    parser.add_argument("--num_critical", type=int, default=5, help="critical samples of each window")
    parser.add_argument(
        "--output", type=str | None, default=None, help=f"file to write; {WINDOWS_NAME} beside the run if not given"
    )
    return parser


def run_detect(arguments: Sequence[str]) -> Path:
    """Parses arguments, opens the run, finds windows, writes and prints them.

    Args:
        arguments: ``detect``, the run and its options.

    Returns:
        The file written.

    Raises:
        InputError: no run, or an unusable setting.
        jsonargparse.ArgumentError: the options could not be parsed.
    """
    parsed = parse(detect_parser(), arguments)
    config = DetectorConfig(**parsed.detector.as_dict())
    folder = Path(parsed.run)
    output = _output(parsed.output, folder)
    run = open_run(folder)
    min_prominence = _run_prominence(run) if parsed.min_prominence is None else parsed.min_prominence
    signals = None if parsed.signal is None else _listed(parsed.signal)
    groups = [str(name) for name in run["group"].values]
    named = [Signal.parse(name, groups) for name in signals or ()]
    contrasts = [(signal.groups[0], signal.groups[1]) for signal in named if signal.kind is Kind.contrast]
    pairs = None if parsed.pairs is None else [_pair(name) for name in _listed(parsed.pairs)]
    table = signal_table(run, pairs, contrasts=contrasts)
    found = detect(
        run,
        table,
        signals=signals,
        min_prominence=min_prominence,
        online=config if parsed.online else None,
        num_critical=parsed.num_critical,
    )
    coefficients = [signal.name for signal in named if signal.kind is Kind.llc]
    boundaries = stage_boundaries(run, coefficients, chance=parsed.chance)
    content = {
        "version": __version__,
        "min_prominence": min_prominence,
        "detector": _settings(config) if parsed.online else None,
        "signals": [str(name) for name in table["signal"].values],
        "windows": [window_record(window) for window in found],
        "transitions": transitions(found),
        "chance": parsed.chance,
        "stage_boundaries": boundary_records(boundaries),
    }
    write_json(output, content)
    # By default, the signals that were searched for windows.
    usual = [str(kind) for kind in (Kind.between, Kind.losses_alone)]
    there = [str(name) for name in table["signal"].values]
    chosen = [name for name in signals or usual if name not in coefficients and name in there]
    reasons = {name: _why_none(table.sel(signal=name), min_prominence) for name in chosen}
    print(_words(run, found, boundaries, reasons))
    print(f"Written: {output}")
    return output


def _listed(given: list[str] | str) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _pair(name: str) -> tuple[str, str]:
    group, between, group_j = name.partition("~")
    if not (group and between and group_j):
        raise InputError(f"got pair {name!r}; expected two groups as A~B; name groups of this run")
    return group, group_j


def _output(given: str | None, run: Path) -> Path:
    """Returns the file to write; refuses a folder before the work."""
    if given is None:
        return (run.parent if run.name == STORE_NAME else run) / WINDOWS_NAME
    if Path(given).is_dir():
        raise InputError(f"got output={given}, a folder; expected a file, such as {Path(given) / WINDOWS_NAME}")
    refuse_below_file(Path(given))
    return Path(given)


def _run_prominence(run: xr.Dataset) -> float:
    """Returns the prominence in the summary of the run, so that without options both report the same windows."""
    summary = summary_of(run)
    return float(summary.get("min_prominence", MIN_PROMINENCE))


def _settings(config: DetectorConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name != "direction"}


def _why_none(row: xr.Dataset, min_prominence: float) -> str | None:
    """Returns the reason why one signal has no offline window; for a falling signal, troughs count."""
    side = -1 if row["direction"].item() == Direction.falling else 1
    return why_no_window(
        row["step"].values,
        side * row["value"].values,
        row["error"].values,
        min_prominence=min_prominence,
        unit=str(row["units"].item()),
    )


def _words(
    run: xr.Dataset,
    found: Sequence[Window],
    boundaries: Mapping[str, Sequence[StageBoundary]],
    reasons: Mapping[str, str | None],
) -> str:
    steps = run["step"].values
    lines = [f"{counted(len(steps), 'probe')}, steps {steps[0]} to {steps[-1]}.", ""]
    if found:
        lines += [window_table(found), ""]
        lines.append(_LEGEND)
    elif not boundaries:
        lines.append("No window was found.")
        lines += [f"- {name}: {why}" for name, why in reasons.items() if why is not None]
        if "llc" in run:
            lines.append("--signal llc shows where the learning coefficient turns.")
    if boundaries:
        lines += [""] if found else []
        split = boundaries_above_zero(run, boundaries)
        if split.shown:
            head = "Stage boundaries, where d llc / d log t changes sign beyond its errors:"
            lines += [head, boundary_table(split.shown)]
        lines += not_shown_lines(split)
    return "\n".join(lines)
