"""Results of the cells: each arm against ``none`` of the same seed, and the arms against each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stagewise._version import __version__
from stagewise.errors import InputError
from stagewise.files.writing import write_json
from stagewise.studies.intervention.arms import Arm, sweep_name, sweep_start
from stagewise.studies.intervention.cell import Cell
from stagewise.studies.intervention.config import InterventionConfig
from stagewise.studies.intervention.outcomes import GAP_THRESHOLD, SCORE_THRESHOLD
from stagewise.studies.intervention.replay import detector_table
from stagewise.studies.intervention.statistics import interval_over_seeds, renewed
from stagewise.studies.intervention.table_file import write_cells_parquet

RESULTS_NAME, PARQUET_NAME = "results.json", "results.parquet"

SIGN = "acceleration = step of none minus step of the arm, same seed; positive = the head forms earlier"
UNITS = {
    "mean_score": "mean prefix score up to the end, 0 to 1, arm minus none; the end is the same step for all arms of a "
    "seed, where the head of none has settled",
    "background_loss": "nats per token at the end, arm minus none; positive = worse; so are final_losses",
    "head_rise": "nats per token by which the loss rises without the best head, arm minus none; positive = bears more",
    "budget": "steps; sum over steps of the mass that the weights moved, up to the end",
    "steps_used": "steps of the window before the head of the arm",
}

INTERVALS = "low, high: 95 % Student t over seeds"

Summary = dict[str, Any]
"""The content of ``results.json``."""

BySeed = Mapping[int, Cell]


def early_score(score_threshold: float) -> float:
    """Returns the prefix score before which the live detector should open its window: half of the head's.

    Args:
        score_threshold: at which the head counts as formed.
    """
    return score_threshold / 2


def thresholds(found: Summary) -> tuple[float, float]:
    """Returns the prefix score and the loss gap, in nats, at which heads counted as formed.

    Args:
        found: see :func:`summarize`; results of earlier versions, which lack them, had the defaults.
    """
    training = found["settings"]["training"]
    return training.get("score_threshold", SCORE_THRESHOLD), training.get("gap_threshold", GAP_THRESHOLD)


def _units(config: InterventionConfig) -> dict[str, str]:
    score, gap = config.training.score_threshold, config.training.gap_threshold
    return {
        "acceleration": f"training steps; first measured step at which the best head's prefix score is above {score}",
        "gap_acceleration": f"training steps; the same for a loss gap of {gap} nats between the copies",
        **UNITS,
    }


def _interval(per_seed: Mapping[int, float]) -> dict[str, Any] | None:
    found = interval_over_seeds(per_seed)
    return None if found is None else found.as_dict()


def by_arm(cells: Sequence[Cell]) -> dict[str, dict[int, Cell]]:
    """Returns cells by name of the arm and by seed, in the order of the cells.

    Raises:
        InputError: a seed has an arm twice.
    """
    found: dict[str, dict[int, Cell]] = {}
    for cell in cells:
        seeds = found.setdefault(cell.name, {})
        if cell.seed in seeds:
            raise InputError(f"got arm {cell.name} of seed {cell.seed} twice; expected each cell once; leave one out")
        seeds[cell.seed] = cell
    return found


def _difference(none: BySeed, arm: BySeed, value: Callable[[Cell], float | None]) -> dict[int, float]:
    """Returns arm minus none, for the seeds that have both."""
    found = {}
    for seed in sorted(set(none) & set(arm)):
        before, after = value(none[seed]), value(arm[seed])
        if before is not None and after is not None:
            found[seed] = after - before
    return found


def _step(cell: Cell, name: str) -> int | None:
    return None if cell.curve is None else getattr(cell.curve, name)


def _saved(none: BySeed, arm: BySeed, name: str) -> tuple[dict[int, float], list[int]]:
    """Returns steps saved per seed, and the seeds whose arm never forms the head, counted with ``max_steps``."""
    saved: dict[int, float] = {}
    censored = []
    for seed in sorted(set(none) & set(arm)):
        before = _step(none[seed], name)
        if before is None or arm[seed].curve is None:
            continue
        after = _step(arm[seed], name)
        if after is None:
            after = arm[seed].max_steps
            censored.append(seed)
        saved[seed] = float(before - after)
    return saved, censored


def _used(cell: Cell) -> float | None:
    """Returns steps of the windows before the head of the cell; up to the end if it forms none."""
    if cell.curve is None or not cell.windows:
        return None
    head = cell.curve.score_step
    until = cell.end if head is None else head
    return float(sum(max(0, min(end, until) - start) for start, end in cell.windows))


def _median(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": float(np.median(values)), "min": float(min(values)), "max": float(max(values)), "n": len(values)}


def _arm(none: BySeed, arm: BySeed, background: str) -> dict[str, Any]:
    saved, censored = _saved(none, arm, "score_step")
    gap, gap_censored = _saved(none, arm, "gap_step")
    share = {seed: value / (_step(none[seed], "score_step") or 1) for seed, value in saved.items()}
    run = {seed: cell for seed, cell in arm.items() if cell.curve is not None}
    groups = sorted({group for cell in run.values() for group in cell.final_losses})
    losses = {
        group: _interval(_difference(none, run, lambda cell, group=group: cell.final_losses.get(group)))  # type: ignore[misc]
        for group in groups
    }
    rises = {seed: cell.ablation.rise for seed, cell in sorted(run.items()) if cell.ablation}
    return {
        "acceleration": _interval(saved),
        "censored": censored,
        "share_of_none": _interval(share),
        "gap_acceleration": _interval(gap),
        "gap_censored": gap_censored,
        "mean_score": _interval(_difference(none, run, lambda cell: cell.mean_score)),
        "final_losses": losses,
        "background_loss": losses.get(background),
        "head_rise": _interval(_difference(none, run, lambda cell: cell.ablation.rise if cell.ablation else None)),
        "head_rise_absolute": _interval(rises),
        "budget": _interval({seed: cell.moved for seed, cell in sorted(run.items())}),
        "steps_used": _interval(
            {seed: used for seed, cell in sorted(run.items()) if (used := _used(cell)) is not None}
        ),
        "window_start": _median([cell.windows[0][0] for cell in run.values() if cell.windows]),
        "notes": {str(seed): cell.note for seed, cell in sorted(arm.items()) if cell.note},
        "not_run": sorted(seed for seed, cell in arm.items() if cell.curve is None),
    }


def _excludes_zero(found: Mapping[str, Any]) -> bool:
    return found["low"] is not None and (found["low"] > 0 or found["high"] < 0)


def _comparison(first: str, second: str, arms: Mapping[str, Any]) -> dict[str, Any] | None:
    one, two = arms[first]["acceleration"], arms[second]["acceleration"]
    if one is None or two is None:
        return None
    shared = [seed for seed in one["per_seed"] if seed in two["per_seed"]]
    found = _interval({int(seed): one["per_seed"][seed] - two["per_seed"][seed] for seed in shared})
    if found is None:
        return None
    return {
        "first": first,
        "second": second,
        "difference": found,
        "censored": sorted({*arms[first]["censored"], *arms[second]["censored"]} & {int(seed) for seed in shared}),
        "excludes_zero": _excludes_zero(found),
    }


def _comparisons(arms: Mapping[str, Any]) -> list[dict[str, Any]]:
    pairs = []
    for base, loss in (("inside", False), ("inside_loss", True)):
        others = [name for name in arms if name.endswith("_loss") == loss or name == "placebo"]
        pairs += [(base, other) for other in others if base in arms and other != base]
    pairs += [(name, f"{name}_loss") for name in arms if f"{name}_loss" in arms]
    found = [_comparison(first, second, arms) for first, second in pairs]
    return [entry for entry in found if entry is not None]


def _sweep(arms: Mapping[str, Any], mechanism: str) -> list[dict[str, Any]]:
    """Returns acceleration by window start; ``earliest`` is the start 0 if the sweep has none."""
    tail = "_loss" if mechanism == "loss" else ""
    starts = {}
    for name in arms:
        if name.endswith("_loss") == bool(tail):
            start = sweep_start(name.removesuffix("_loss") if tail else name)
            if start is not None:
                starts[start] = name
    if f"earliest{tail}" in arms and starts and sweep_name(0) + tail not in arms:
        starts[0] = f"earliest{tail}"
    return [
        {"start": start, "arm": starts[start], "acceleration": arms[starts[start]]["acceleration"]}
        for start in sorted(starts)
        if arms[starts[start]]["acceleration"] is not None
    ]


def _windows(none: BySeed, early: float) -> dict[str, Any]:
    found = {}
    for seed, cell in sorted(none.items()):
        curve = cell.curve
        found[str(seed)] = {
            "onset": cell.timeline.get("onset"),
            "within_onset": cell.timeline.get("within_onset"),
            "peak": cell.timeline.get("peak"),
            "end": cell.end,
            "t25": None if curve is None else curve.step_at_score(early),
            "t50": None if curve is None else curve.score_step,
            "gap_step": None if curve is None else curve.gap_step,
        }
        if "influence_onset" in cell.timeline:
            found[str(seed)]["influence_onset"] = cell.timeline["influence_onset"]
    return found


def _live(none: BySeed, live: BySeed, acceleration: dict[str, Any] | None, early: float) -> dict[str, Any]:
    """Evaluates the online detector over seeds whose run without weights reaches the required scores.

    Until its first window opens, the live run equals the one without weights, so the scores of the latter count.
    """
    seeds = [seed for seed in sorted(set(none) & set(live)) if none[seed].curve and live[seed].curve]
    first = {seed: min((start for start, _ in live[seed].windows), default=None) for seed in seeds}
    t25 = {seed: none[seed].curve.step_at_score(early) for seed in seeds}  # type: ignore[union-attr]
    t50 = {seed: none[seed].curve.score_step for seed in seeds}  # type: ignore[union-attr]
    asked = [(first[seed], t25[seed]) for seed in seeds if t25[seed] is not None]
    formed = [(first[seed], t50[seed]) for seed in seeds if t50[seed] is not None]
    return {
        "first_window": {str(seed): start for seed, start in first.items()},
        "windows": {str(seed): [list(window) for window in live[seed].windows] for seed in seeds},
        "opened_before_t25": sum(start is not None and start < step for start, step in asked),  # type: ignore[operator]
        "opened_before_t25_n": len(asked),
        "none_before_half_t50": sum(start is None or start >= step / 2 for start, step in formed),  # type: ignore[operator]
        "none_before_half_t50_n": len(formed),
        "acceleration": acceleration,
    }


def summarize(config: InterventionConfig, cells: Sequence[Cell]) -> Summary:
    """Returns all results of the cells, as plain data without wall-clock times.

    A run that never forms the head counts with its maximal number of steps: its acceleration is an upper bound, and its
    seed is listed in ``censored``. A seed whose run without weights forms none is left out and listed in ``left_out``.
    In ``windows``, ``t50`` is the step at which the head has formed by score, ``t25`` that of half of that score: 0.5
    and 0.25 by default.

    Args:
        config: of the experiment.
        cells: finished cells; some may be missing, or could not be run.

    Raises:
        InputError: a repeated cell, or none of the arm ``none``.
    """
    ordered = [f"{arm}_loss" if how == "loss" else arm for arm, how in config.cells()]
    rank = {name: place for place, name in enumerate(ordered)}
    cells = sorted(cells, key=lambda cell: (rank.get(cell.name, len(rank)), cell.name, cell.seed))
    grouped = by_arm(cells)
    none = grouped.get(str(Arm.none), {})
    if not none:
        raise InputError(f"got cells of {sorted(grouped)}; expected some of the arm none; run it first")
    left_out = [seed for seed, cell in sorted(none.items()) if cell.curve is None or cell.curve.score_step is None]
    kept = {seed: cell for seed, cell in none.items() if seed not in left_out}
    early, background = early_score(config.training.score_threshold), config.weights.background
    arms = {
        name: _arm(kept, {seed: cell for seed, cell in found.items() if seed not in left_out}, background)
        for name, found in grouped.items()
        if name != Arm.none
    }
    seeds = sorted({cell.seed for cell in cells})
    return {
        "version": __version__,
        "sign": SIGN,
        "units": _units(config),
        "intervals": INTERVALS,
        "settings": _settings(config),
        "seeds": seeds,
        "left_out": left_out,
        "missing": [[seed, name] for seed in config.seeds for name in ordered if seed not in grouped.get(name, {})],
        "none": {
            "score_step": _median([s for c in none.values() if (s := _step(c, "score_step")) is not None]),
            "head_rise": _interval({s: c.ablation.rise for s, c in sorted(none.items()) if c.ablation}),
        },
        "arms": arms,
        "comparisons": _comparisons(arms),
        "sweep": {how: _sweep(arms, how) for how in config.weights.mechanisms},
        "windows": _windows(none, early),
        "live": {
            name: _live(none, grouped[name], arms[name]["acceleration"], early)
            for name in ("live", "live_loss")
            if name in grouped
        },
    }


def with_intervals_anew(found: Summary) -> Summary:
    """Returns results of an earlier version with current intervals, computed from their stored values of seeds.

    Args:
        found: content of a ``results.json``.
    """
    again = {**renewed(found), "intervals": INTERVALS}
    for comparison in again["comparisons"]:
        comparison.pop("t_excludes_zero", None)
        comparison["excludes_zero"] = _excludes_zero(comparison["difference"])
    return again


def _settings(config: InterventionConfig) -> dict[str, Any]:
    """Returns the settings that determine the results, without the folder of the cells and the processes."""
    return {k: v for k, v in asdict(config).items() if k not in ("output", "num_workers", "backend")}


def write_results(output: Path, config: InterventionConfig, cells: Sequence[Cell]) -> Summary:
    """Writes ``results.json`` and ``results.parquet``; returns the content of the first.

    Args:
        output: folder.
        config: of the experiment.
        cells: finished cells.
    """
    early = early_score(config.training.score_threshold)
    found = {**summarize(config, cells), "detector": detector_table(config, cells, early_score=early)}
    write_cells_parquet(output / PARQUET_NAME, cells)
    write_json(output / RESULTS_NAME, found)
    return found
