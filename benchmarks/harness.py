"""Common parts of the benchmarks: one thread, process CPU time, rows, a table and a JSON file.

    from harness import Row, arguments, compare, report, single_thread

    def main() -> None:
        options = arguments(__doc__)          # --rounds, --json
        single_thread()
        times = compare({"ours": ours, "floor": floor}, rounds=options.rounds)
        report([Row.of("case", "ours", "marginal draw", times["ours"], floor=times["floor"])], options.json)

Process CPU time is not affected by other processes. On a GPU, where the CPU only waits, use ``clock=device_clock``.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, median, stdev

import torch
from scipy.stats import t as student

Clock = Callable[[], float]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def single_thread() -> None:
    """Limits computation to one thread. BLAS reads this setting on import, so that the script may restart itself."""
    if any(os.environ.get(name) != "1" for name in _THREADS):
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    torch.set_num_threads(1)


def device_clock() -> float:
    """Returns wall-clock seconds, after the GPU has finished its work."""
    torch.cuda.synchronize()
    return time.perf_counter()


def arguments(doc: str | None, rounds: int = 7, **more: object) -> argparse.Namespace:
    """Parses ``--rounds``, ``--json`` and further ``--name`` options of their default's type; False makes a flag."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="repetitions; medians are reported")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    for name, default in more.items():
        how = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name.replace('_', '-')}", **how)
    return parser.parse_args()


def _calls_needed(run: Callable[[], object], clock: Clock, least_seconds: float) -> int:
    """Returns the number of calls for a round of ``least_seconds``, after a warm-up call."""
    run()
    start = clock()
    run()
    return max(1, round(least_seconds / max(clock() - start, 1e-7)))


def compare(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    clock: Clock = time.process_time,
    least_seconds: float = 0.05,
) -> dict[str, list[float]]:
    """Measures seconds per call in each round, by name.

    Each round times every candidate once, so that changes of the machine's load affect all of them. Fast calls are
    repeated until a round lasts ``least_seconds``.
    """
    calls = {name: _calls_needed(run, clock, least_seconds) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            for _ in range(calls[name]):
                run()
            times[name].append((clock() - start) / calls[name])
    return times


def cpu_time(run: Callable[[], object], rounds: int, *, least_seconds: float = 0.05) -> list[float]:
    """Measures process CPU seconds per call in each round, after a warm-up call."""
    return compare({"": run}, rounds, least_seconds=least_seconds)[""]


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    Attributes:
        case: model, shapes and data.
        implementation: code that was run, with its settings.
        measure: measured quantity, e.g. "marginal draw / floor".
        ratio: figure to which targets refer; None if only a value is reported.
        rounds: number of repetitions.
        value: absolute figure.
        unit: of ``value``.
        low: lower end of the interval of ``ratio``, or of ``value`` without a ratio.
        high: upper end.
        note: remarks.
    """

    case: str
    implementation: str
    measure: str
    ratio: float | None
    rounds: int
    value: float | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    note: str = ""

    @classmethod
    def of(
        cls,
        case: str,
        implementation: str,
        measure: str,
        times: Sequence[float],
        *,
        floor: Sequence[float] | None = None,
        note: str = "",
    ) -> "Row":
        """Creates a row of seconds: medians, and the range over rounds.

        Args:
            case: as the attribute.
            implementation: as the attribute.
            measure: as the attribute.
            times: seconds in each round.
            floor: seconds of the comparison in the same rounds; the ratio is the median over rounds.
            note: as the attribute.
        """
        ratios = None if floor is None else [ours / theirs for ours, theirs in zip(times, floor, strict=True)]
        shown = times if ratios is None else ratios
        ratio = None if ratios is None else median(ratios)
        return cls(case, implementation, measure, ratio, len(times), median(times), "s", min(shown), max(shown), note)


def mean_interval(values: Sequence[float]) -> str:
    """Formats the mean of independent rounds with its 95 % interval (Student's t); "one round" for a single one."""
    if len(values) < 2:
        return "one round"
    mean, half = fmean(values), stdev(values) / len(values) ** 0.5 * float(student.ppf(0.975, len(values) - 1))
    return f"mean {mean:.3g}, 95 % [{mean - half:.3g}, {mean + half:.3g}]"


def report(rows: Sequence[Row], json_path: Path | None = None) -> None:
    """Prints the rows as a Markdown table, and writes them to a file if given."""
    names = [field.name for field in fields(Row)]
    cells = [[_text(value) for value in asdict(row).values()] for row in rows]
    used = [column for column, name in enumerate(names) if any(line[column] for line in cells) or name == "ratio"]
    widths = {column: max(len(names[column]), *(len(line[column]) for line in cells)) for column in used}
    for line in (names, ["-" * widths.get(column, 0) for column in range(len(names))], *cells):
        print("| " + " | ".join(line[column].ljust(widths[column]) for column in used) + " |")
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def _text(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
