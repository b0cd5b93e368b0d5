"""Formation of an induction head in real text, and influence meanwhile: `configs/code.yaml` over seeds.

    python benchmarks/code_seeds.py --seeds 2 3 4 5 --json benchmarks/results/code_seeds.json

Trains one seed after another (or reads runs that are there, with --read-only; seeds whose run has ended are not
trained again) and prints, as Markdown: scores of heads over steps; when the influence of induction targets on each
other leaves its plateau, peaks and declines, with 95 % intervals from the run's own errors; what losses alone,
learning coefficients, the loss-free control and changes of sign show; and how means change as the head forms, over
seeds, next to those of the control class and of seeds without a head. Settings were chosen on seed 1.

A head has formed where the prefix-matching score passes .25 and the previous-token score .5. CPU seconds are of the
process that trains, its probes included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import stdtrit

from stagewise import open_run
from stagewise.reporting.scores import Score, read_scores
from stagewise.runs.control import control_findings
from stagewise.runs.rises import Rise, influence_rises
from stagewise.runs.summary_file import summary_of

GROUPS = ("induction", "induction_strict", "repeated_other_follower")
FORMED = {"prefix_matching": 0.25, "previous_token": 0.5}
THOUSANDS = 1e3
"""Influence is drawn in 1e-3 nats^2."""
COLOURS = dict(zip(GROUPS, ("#0072B2", "#D55E00", "#009E73"), strict=True))


def train(seed: int, folder: Path, config: str, overrides: list[str]) -> float:
    """Trains one seed; returns the CPU seconds of the run."""
    settings = {
        "seed_everything": seed,
        "data.init_args.seed": seed,
        "trainer.logger.init_args.save_dir": folder.parent.parent,
        "trainer.logger.init_args.name": folder.parent.name,
        "trainer.logger.init_args.version": folder.name,
        "trainer.enable_progress_bar": "false",
    }
    options = [item for name, value in settings.items() for item in (f"--{name}", str(value))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "stagewise", "fit", "-c", config, *options, *overrides]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "terminal.txt").open("w") as terminal:
        subprocess.run(command, check=True, stdout=terminal, stderr=subprocess.STDOUT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def passes(score: Score, level: float) -> int | None:
    """Returns the step of the first measurement at which a score has passed a level; None if never."""
    above = np.flatnonzero(score.values >= level)
    return int(score.steps[above[0]]) if len(above) else None


def place(rise: Rise | None, name: str) -> list[float] | None:
    found = None if rise is None else getattr(rise, name)
    return None if found is None else [round(found.step), round(found.earliest), round(found.latest)]


def course(run: xr.Dataset, group: str, rise: Rise | None) -> dict:
    """Describes the influence of one group on itself, with values and intervals at the peak and at the end."""
    curve = run.stagewise.curve(group)
    at = {} if rise is None else {"peak_value": rise.peak.step}
    at["last_value"] = float(curve["step"].values[-1])
    values = {
        name: [float(curve[end].sel(step=int(step))) for end in ("value", "low", "high")] for name, step in at.items()
    }
    return {
        "plateau": None if rise is None else rise.plateau,
        "limit": None if rise is None else rise.limit,
        "sure": rise is not None and rise.sure,
        "leaves": place(rise, "leaves"),
        "peak": place(rise, "peak"),
        "declines": None if rise is None or rise.decline is None else rise.decline.significance,
        **values,
    }


def stages(run: xr.Dataset, rise: tuple[int, int] | None) -> dict | None:
    """Returns means before, during and after the rise of the prefix-matching score (from 1/4 to 3/4 of its height)."""
    if rise is None:
        return None
    steps = run["step"].values
    masks = {"before": steps <= rise[0], "rising": (steps > rise[0]) & (steps <= rise[1]), "after": steps > rise[1]}
    curves = {group: run.stagewise.curve(group)["value"].values for group in GROUPS}
    curves |= {f"loss/{group}": run["group_loss"].sel(group=group).values for group in GROUPS}
    curves["llc"] = run["llc"].values
    curves |= {f"llc/{group}": run["group_llc"].sel(group=group).values for group in GROUPS}
    means = {
        name: {stage: float(values[mask].mean()) if mask.any() else None for stage, mask in masks.items()}
        for name, values in curves.items()
    }
    return {"rise": list(rise), "means": means}


def ratios(found: list[dict], stage: str, name: str, control: str | None = None) -> np.ndarray:
    """Mean of a stage over that before the rise, by seed; with ``control``, over the same ratio of another curve."""
    names = [name] if control is None else [name, control]
    if any(not means[one][key] for means in found for one in names for key in (stage, "before")):
        return np.zeros(0)
    own, *others = (np.array([means[one][stage] / means[one]["before"] for means in found]) for one in names)
    return own / others[0] if others else own


def geometric(values: np.ndarray) -> str:
    """Geometric mean over seeds with Student's 95 % interval."""
    if not len(values) or values.min() <= 0:
        return "-"
    logs = np.log(values)
    if len(logs) == 1:
        return f"{values[0]:.2f}"
    half = stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, high = np.exp(logs.mean() - half), np.exp(logs.mean() + half)
    return f"{np.exp(logs.mean()):.2f} [{low:.2f}, {high:.2f}]"


def over_seeds(rows: list[dict], name: str, control: str | None = None) -> list[str]:
    """Rising and after, over before; then the same in seeds without a head, at the steps of the others."""
    heads = [row["stages"]["means"] for row in rows if row["stages"]]
    others = [stages["means"] for row in rows for stages in row["at_rises_of_others"]]
    cells = [geometric(ratios(heads, stage, name, control)) for stage in ("rising", "after")]
    for stage in ("rising", "after"):
        found = ratios(others, stage, name, control)
        cells.append(f"{found.min():.2f} to {found.max():.2f}" if len(found) else "-")
    return cells


def measure(folder: Path) -> dict:
    run = open_run(folder)
    scores = {score.name: score for score in read_scores(folder)}
    rises = influence_rises(run)
    boundaries = run.stagewise.stage_boundaries("llc", "llc/induction")
    control = control_findings(run)
    changes = run.stagewise.sign_changes()
    row = {
        "run": folder.name,
        "probes": run.sizes["step"],
        "in_equilibrium": int(run.stagewise.probes["equilibrated"].sum()),
        "overhead": summary_of(run).get("overhead"),
        "verdict": {name: getattr(run.stagewise.verdict(), name).answer for name in ("positions", "signs", "heights")},
        "formed": {name: passes(scores[name], level) for name, level in FORMED.items()},
        "scores": {
            name: {int(step): round(float(value), 3) for step, value in zip(score.steps, score.values, strict=True)}
            for name, score in scores.items()
        },
        "course": {group: course(run, group, rises.get(group)) for group in GROUPS},
        "others": {
            group: {"leaves": place(rise, "leaves"), "peak": place(rise, "peak"), "declines": rise.decline is not None}
            for group, rise in rises.items()
            if group not in GROUPS
        },
        "stages": stages(run, scores["prefix_matching"].rise()),
        "llc": {
            name: [[str(item.kind), item.step, item.earliest, item.latest] for item in found]
            for name, found in boundaries.items()
        },
        "sign_changes": [
            [item.group, item.group_j, item.flip.words, item.flip.earliest, item.flip.latest, item.over_all]
            for item in changes.found
        ],
        "curves": changes.num_curves,
        "control": None
        if control is None
        else {
            "pairs": {item.words: sum(p.words == item.words for p in control.pairs) for item in control.pairs},
            **{
                pair.group: {"effects": pair.effects, "beyond": pair.beyond, "alike": pair.alike, "ratio": pair.ratio}
                for pair in control.pairs
                if pair.group == pair.group_j and pair.group in GROUPS
            },
        },
    }
    for signal in ("between", "losses_alone", "contrast/induction~repeated_other_follower"):
        row[signal] = [[window.start, window.peak, window.end] for window in run.stagewise.windows(signal)]
    time = folder / "cpu_seconds.txt"
    row["cpu_seconds"] = float(time.read_text()) if time.is_file() else None
    row["holds"] = all(step is not None for step in row["formed"].values())
    return row


def compare_without_head(rows: list[dict], runs: Path) -> None:
    """Adds to each seed whose score does not rise its means at the steps at which that of the others rises."""
    rises = [tuple(row["stages"]["rise"]) for row in rows if row["stages"]]
    for row in rows:
        alone = [] if row["stages"] else [stages(open_run(runs / row["run"]), rise) for rise in rises]
        row["at_rises_of_others"] = alone


def words(found: list[float] | None) -> str:
    return "-" if found is None else f"{found[0]:,} [{found[1]:,}, {found[2]:,}]"


def table(header: list[str], lines: list[list[object]]) -> str:
    rows: list[Sequence[object]] = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def markdown(rows: list[dict], every: int) -> str:
    steps = sorted({step for row in rows for step in row["scores"]["prefix_matching"] if step % every == 0})
    parts = []
    for name in FORMED:
        lines = [
            [row["seed"], *(row["scores"][name].get(step, "-") for step in steps), row["formed"][name] or "-"]
            for row in rows
        ]
        header = ["seed", *(f"{step:,}" for step in steps), f"passes {FORMED[name]}"]
        parts += [f"{name}, best head, by step:", table(header, lines)]
    for group in GROUPS:
        lines = []
        for row in rows:
            one = row["course"][group]
            turn = "-" if one["declines"] is None else f"yes ({one['declines']:.1f} errors)"
            value = "-" if "peak_value" not in one else "{:.2e} [{:.2e}, {:.2e}]".format(*one["peak_value"])
            last = "{:.2e} [{:.2e}, {:.2e}]".format(*one["last_value"])
            plateau = "-" if one["plateau"] is None else f"{one['plateau']:.2e} ({one['limit']:.1e})"
            lines.append([row["seed"], plateau, words(one["leaves"]), words(one["peak"]), value, turn, last])
        header = ["seed", "plateau (a rise that would be sure)", "leaves it", "lowest at", "there, nats²", "declines"]
        header.append("at the end, nats²")
        parts += [f"Influence of {group} on itself:", table(header, lines)]
    lines = [
        [
            row["seed"],
            f"{row['in_equilibrium']} of {row['probes']}",
            "; ".join(f"{item[0]:,} to {item[2]:,}" for item in row["losses_alone"]) or "-",
            "; ".join(f"{item[0]} {words(item[1:])}" for item in row["llc"]["llc"]) or "-",
            "; ".join(f"{item[0]} {words(item[1:])}" for item in row["llc"]["llc/induction"]) or "-",
            len(row["sign_changes"]),
            "-" if row["cpu_seconds"] is None else f"{row['cpu_seconds'] / 60:.1f}",
        ]
        for row in rows
    ]
    header = ["seed", "in equilibrium", "windows in losses alone", "llc turns", "llc of induction turns"]
    parts.append(table([*header, "sign changes", "CPU minutes"], lines))
    names = [*GROUPS, *(f"loss/{group}" for group in GROUPS), "llc", *(f"llc/{group}" for group in GROUPS)]
    lines = [[name, *over_seeds(rows, name)] for name in names]
    control = GROUPS[-1]
    for kind in ("", "loss/", "llc/"):
        lines += [
            [f"{kind}{group} / {kind}{control}", *over_seeds(rows, f"{kind}{group}", f"{kind}{control}")]
            for group in GROUPS[:-1]
        ]
    heads = sum(row["stages"] is not None for row in rows)
    parts += [
        f"Means over those before the prefix-matching score rises, in {heads} seeds (influence without prefix), with "
        "Student's 95 % intervals over seeds; last, seeds without a head at the same steps:",
        table(["", "while it rises", "after", "no head: while", "no head: after"], lines),
    ]
    return "\n\n".join(parts)


def band(axes: Axes, curve: xr.Dataset, name: str) -> None:
    axes.plot(curve["step"], curve["value"], color=COLOURS[name], marker="o", markersize=2.5, linewidth=1.2, label=name)
    axes.fill_between(curve["step"], curve["low"], curve["high"], color=COLOURS[name], alpha=0.2, linewidth=0)


def draw_run(panels: list[Axes], folder: Path, title: str) -> None:
    """Draws one column: scores, losses, influence with the intervals of onset and peak, learning coefficients."""
    run = open_run(folder)
    scores = {score.name: score for score in read_scores(folder)}
    for name, style in (("prefix_matching", "-"), ("previous_token", "--")):
        panels[0].plot(scores[name].steps, scores[name].values, style, color="#7A5195", label=name)
    spans = [scores["prefix_matching"].rise()]
    for axes in panels:
        for start, end in filter(None, spans):
            axes.axvspan(start, end, color="#F0C330", alpha=0.25, linewidth=0)
    rises = influence_rises(run)
    for place, name in enumerate(GROUPS):
        panels[1].plot(run["step"], run["group_loss"].sel(group=name), color=COLOURS[name], label=name)
        band(panels[2], run.stagewise.curve(name) * THOUSANDS, name)
        rise = rises.get(name)
        if rise is None or not rise.sure:
            continue
        assert rise.leaves is not None
        height = 0.05 + 0.06 * place
        for found, mark in ((rise.leaves, "|"), (rise.peak, "v" if rise.decline is None else "D")):
            across = panels[2].get_xaxis_transform()
            panels[2].plot([found.earliest, found.latest], [height] * 2, color=COLOURS[name], transform=across)
            panels[2].plot([found.step], [height], mark, color=COLOURS[name], transform=across, markersize=6)
    table = run.stagewise.llc()
    for name in GROUPS[1:]:
        band(panels[3], table.sel(group=name), name)
    panels[2].axhline(0, color="#333333", linewidth=0.8)
    panels[0].text(0.05, 0.93, title, transform=panels[0].transAxes, verticalalignment="top", fontsize=10)
    panels[-1].set_xlabel("training step")


def draw(path: Path, folders: dict[int, Path]) -> None:
    figure = Figure(figsize=(1 + 1.9 * len(folders), 9))
    figure.set_layout_engine("constrained", hspace=0.13, rect=(0, 0, 1, 0.97))
    columns = figure.subplots(4, len(folders), sharex=True, sharey="row", squeeze=False)
    for place, (seed, folder) in enumerate(folders.items()):
        draw_run(list(columns[:, place]), folder, f"seed {seed}")
    names = ("score of the best head", "loss, nats", "BIF, 1e-3 nats² (negative = helpful)", "learning coefficient")
    for axes, name in zip(columns[:, 0], names, strict=True):
        axes.set_ylabel(name, fontsize=9)
    for row in columns:
        # Above its row; it is wider than one column.
        row[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=9, frameon=False).set_in_layout(
            False
        )
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/code.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--name", default="code_seeds")
    parser.add_argument("--read-only", action="store_true", help="do not train, read existing runs")
    parser.add_argument("--every", type=int, default=400, help="steps between the scores shown")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--figure", type=Path, help="also draw the curves of the seeds side by side")
    parser.add_argument("overrides", nargs="*", help="further settings for stagewise fit, after --")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    for seed in arguments.seeds:
        folder = arguments.runs / arguments.name / f"seed{seed}"
        ended = (folder / "cpu_seconds.txt").is_file()
        if not (arguments.read_only or ended):
            seconds = train(seed, folder, arguments.config, arguments.overrides)
            (folder / "cpu_seconds.txt").write_text(f"{seconds:.1f}\n")
        if not (folder / "influence.zarr").is_dir():
            print(f"seed {seed}: no run in {folder}", file=sys.stderr)
            continue
        rows.append({"seed": seed, **measure(folder)})
        compare_without_head(rows, arguments.runs / arguments.name)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if rows and arguments.figure:
        draw(arguments.figure, {row["seed"]: arguments.runs / arguments.name / f"seed{row['seed']}" for row in rows})
    if rows:
        print(markdown(rows, arguments.every))
        print(f"\nThe heads form in {sum(row['holds'] for row in rows)} of {len(rows)} seeds.")


if __name__ == "__main__":
    main()
