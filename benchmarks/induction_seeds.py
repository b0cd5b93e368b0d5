"""Test over several seeds that the influence of induction data peaks where the induction head forms.

    python benchmarks/induction_seeds.py --seeds 11 12 13 14 15

Trains `configs/induction.yaml` once per seed (or reads existing runs, with --read-only) and prints, from the event
files alone:

- t25, t50: steps at which the best head's prefix-matching score passes .25 and .5 (linear between readings);
- peak: step of the largest |BIF| of induction to induction, within part;
- plateau: median of that |BIF| at steps between .1 and .5 of t50;
- onset ratio: |BIF| at t25 over the plateau; peak ratio: |BIF| at the peak over the plateau.

The claim holds for a seed if the peak is within 15 % of t50, the peak ratio is at least 5, and the onset ratio at
least 3.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PREFIX = "induction/prefix_matching"
WITHIN = "influence/within/induction~induction"


def read(events: EventAccumulator, tag: str) -> tuple[np.ndarray, np.ndarray]:
    points = events.Scalars(tag)
    return np.array([point.step for point in points]), np.array([point.value for point in points])


def passes(steps: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """Returns the first step at which the values pass a level, linear between readings; None if never."""
    above = np.flatnonzero(values >= level)
    if not len(above):
        return None
    row = int(above[0])
    if row == 0:
        return float(steps[0])
    return float(np.interp(level, values[row - 1 : row + 1], steps[row - 1 : row + 1]))


def measure(folder: Path) -> dict:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    t25, t50 = (passes(*read(events, PREFIX), level) for level in (0.25, 0.5))
    steps, influence = read(events, WITHIN)
    size = np.abs(influence)
    peak = int(steps[size.argmax()])
    row = {"run": str(folder), "probes": len(steps), "t25": t25, "t50": t50, "peak": peak}
    if t25 is None or t50 is None:
        return {**row, "holds": False}
    plateau = float(np.median(size[(steps >= 0.1 * t50) & (steps <= 0.5 * t50)]))
    off, peak_ratio = peak / t50 - 1, float(size.max()) / plateau
    onset_ratio = float(np.interp(t25, steps, size)) / plateau
    return {
        **row,
        "offset": peak - t50,
        "relative_offset": off,
        "plateau": plateau,
        "peak_ratio": peak_ratio,
        "onset_ratio": onset_ratio,
        "holds": abs(off) <= 0.15 and peak_ratio >= 5 and onset_ratio >= 3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/induction.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--name", default="induction_seeds")
    parser.add_argument("--read-only", action="store_true", help="do not train, read existing runs")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("overrides", nargs="*", help="further settings for stagewise fit, after --")
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        start = time.perf_counter()
        if not arguments.read_only:
            settings = {
                "seed_everything": seed,
                "data.init_args.seed": seed,
                "trainer.logger.init_args.save_dir": arguments.runs,
                "trainer.logger.init_args.name": arguments.name,
                "trainer.logger.init_args.version": f"seed{seed}",
                "trainer.enable_progress_bar": "false",
            }
            options = [item for name, value in settings.items() for item in (f"--{name}", str(value))]
            command = [sys.executable, "-m", "stagewise", "fit", "-c", arguments.config, *options, *arguments.overrides]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        row = {"seed": seed, **measure(arguments.runs / arguments.name / f"seed{seed}")}
        row["seconds"] = time.perf_counter() - start
        rows.append(row)
        print(_line(row), flush=True)
    print(f"holds for {sum(row['holds'] for row in rows)} of {len(rows)} seeds")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def _line(row: dict) -> str:
    if row["t50"] is None:
        return f"seed {row['seed']}: no head formed ({row['probes']} probes)"
    return (
        f"seed {row['seed']}: t25 {row['t25']:.0f}, t50 {row['t50']:.0f}, peak {row['peak']} "
        f"({row['relative_offset']:+.1%}), plateau {row['plateau']:.2e} nats^2, onset x{row['onset_ratio']:.1f}, "
        f"peak x{row['peak_ratio']:.1f}, {row['probes']} probes, {row['seconds']:.0f} s: "
        f"{'holds' if row['holds'] else 'FAILS'}"
    )


if __name__ == "__main__":
    main()
