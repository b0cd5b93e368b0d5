"""Figures and numbers of `docs/suites.md`: classes of tokens, learning coefficients and heads over a suite.

    python benchmarks/suite.py runs/suite [--heads runs/wang_tiny] [--json FILE] [--figures FOLDER] [--text STEP]

The sweeps are those of `configs/suite.yaml` and `configs/papers/wang_tiny.yaml`, each with its control; `--text` draws
the coloured text of a sweep with a query. Intervals are 95 % Student's t intervals, from jackknife errors over chains.
Influence is that of the chains of one checkpoint, without a reference; heads are compared by columns standardised over
classes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from scipy.special import stdtrit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stagewise import open_run
from stagewise.reporting import tags
from stagewise.reporting.style import label, new_figure, step_axis
from stagewise.runs.control import control_findings
from stagewise.runs.probe_files import SUMMARY_NAME
from stagewise.runs.susceptibilities import principal_responses, standardized_columns
from stagewise.sweep.responses import component_responses

SHOWN = ("induction", "induction_strict", "repeated_other_follower")
"""Classes to draw, if the sweep has them."""
COLOURS = ("#0072B2", "#D55E00", "#009E73")
SETTINGS = (
    *("lr", "nbeta", "localization", "num_chains", "num_draws", "num_burnin_steps", "num_steps_bw_draws"),
    *("batch_size", "seed"),
)
PREFIX_SCORE, PREVIOUS_SCORE = 0.3, 0.5
"""Scores above which a head counts as an induction head, or as a previous-token head."""
THOUSANDS = 1e3
"""Factor for influence in units of 1e-3 nats^2."""


def best_heads(output: Path) -> pd.DataFrame:
    """Returns the scores of the best head at each step."""
    table = pd.read_csv(output / "circuits.csv")
    return table.groupby("step")[["prefix_matching", "previous_token", "loss_gap"]].agg(
        {"prefix_matching": "max", "previous_token": "max", "loss_gap": "first"}
    )


def with_ends(value: np.ndarray, error: np.ndarray, chains: np.ndarray) -> dict[str, list[float]]:
    """Returns values and ends of 95 % intervals, by step; ``chains`` is the number underlying the errors."""
    half = error * stdtrit(chains - 1, 0.975)
    return {"value": value.tolist(), "low": (value - half).tolist(), "high": (value + half).tolist()}


def curve(run: xr.Dataset, name: str, group: str) -> dict[str, list[float]]:
    """Returns the influence of a class on itself, with intervals."""
    value, error = (run[key].sel(group=group, group_j=group).values for key in (name, f"{name}_se"))
    return with_ends(value, error, run["control_chains"].values)


def coefficient(run: xr.Dataset, group: str | None) -> dict[str, list[float]]:
    """Returns the learning coefficient of all losses or of a class, with intervals."""
    names = ("llc", "llc_se") if group is None else ("group_llc", "group_llc_se")
    value, error = (run[name].values if group is None else run[name].sel(group=group).values for name in names)
    return with_ends(value, error, run["llc_chains"].values)


def numbers(output: Path) -> dict[str, Any]:
    """Returns all numbers of the page about the whole model."""
    run = open_run(output)
    scores = best_heads(output).reindex(run["step"].values)
    return {
        "steps": run["step"].values.tolist(),
        "settings": {key: run.attrs["sgld"][key] for key in SETTINGS},
        "verdict": json.loads((output / SUMMARY_NAME).read_text())["verdict"]["text"],
        "equilibrated": [bool(value) for value in run["equilibrated"].values],
        "flags": run["flag_names"].values.tolist(),
        "effective_draws": run["ess_groups"].values.tolist(),
        "scores": {name: scores[name].tolist() for name in scores},
        "loss": {group: run["group_loss"].sel(group=group).values.tolist() for group in run["group"].values.tolist()},
        "influence": {g: curve(run, "control_probe_bif", g) for g in run["group"].values.tolist()},
        "control": {g: curve(run, "control_group_bif", g) for g in run["group"].values.tolist()},
        "difference": {g: curve(run, "control_difference", g) for g in run["group"].values.tolist()},
        "llc": {"all": coefficient(run, None)} | {g: coefficient(run, g) for g in run["group"].values.tolist()},
        "llc_localized_share": run["llc_localized_share"].values.tolist(),
        "counts": counts(run),
    }


def counts(run: xr.Dataset) -> dict[str, Any]:
    """Influences against their control, changes of sign, and turns of learning coefficients."""
    against = control_findings(run)
    if against is None:
        raise SystemExit("suite.py: got a sweep without a control; set probe.control_every to 1")
    changes = run.stagewise.sign_changes()
    names = ["llc", *(f"llc/{group}" for group in SHOWN if group in run["group"])]
    turns = run.stagewise.stage_boundaries(*names)
    return {
        "against_control": {
            name: against.total(name) for name in ("effects", "beyond", "weaker", "alike", "undecided")
        },
        "sign_changes": {
            "curves": changes.num_curves,
            "found": len(changes.found),
            "over_all_curves": sum(change.over_all for change in changes.found),
        },
        "turns": {
            name: [[str(turn.kind), turn.step, turn.earliest, turn.latest] for turn in found]
            for name, found in turns.items()
        },
    }


def short_name(head: str) -> str:
    """``layer3.head1`` as ``3.1``."""
    return head.replace("layer", "").replace(".head", ".")


def _line(
    axes: Axes, whole: dict[str, Any], found: dict[str, list[float]], colour: str, name: str, scale: float
) -> None:
    """Draws a curve with its intervals; open markers where chains are out of equilibrium."""
    value, low, high = (np.array(found[key]) * scale for key in ("value", "low", "high"))
    steps, good = np.array(whole["steps"]), np.array(whole["equilibrated"])
    axes.plot(steps, value, color=colour, label=name)
    axes.plot(steps[good], value[good], "o", color=colour, markersize=4)
    axes.plot(steps[~good], value[~good], "o", color=colour, markerfacecolor="white", markersize=4)
    axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)


def draw_classes(found: dict[str, Any], path: Path) -> None:
    """Draws scores, influence with its control, their difference, and learning coefficients."""
    figure = new_figure(9, 7.2, "A suite of small language models: classes of tokens as an induction head forms")
    panels, steps = figure.subplots(2, 2).ravel(), found["steps"]
    for name, colour in (("prefix_matching", COLOURS[0]), ("previous_token", COLOURS[1])):
        panels[0].plot(
            steps, found["scores"][name], color=colour, marker="o", markersize=3, label=name.replace("_", " ")
        )
    label(panels[0], title="Scores of the best head", y="attention, 0 to 1")
    shown = [name for name in SHOWN if name in found["influence"]] or list(found["influence"])[:3]
    for name, colour in zip(shown, COLOURS, strict=False):
        _line(panels[1], found, found["influence"][name], colour, name.replace("_", " "), THOUSANDS)
        panels[1].plot(steps, np.array(found["control"][name]["value"]) * THOUSANDS, color=colour, linestyle=":")
        _line(panels[2], found, found["difference"][name], colour, name.replace("_", " "), THOUSANDS)
        _line(panels[3], found, found["llc"][name], colour, name.replace("_", " "), 1)
    _line(panels[3], found, found["llc"]["all"], "black", "all tokens", 1)
    title = "Influence of a class on itself (dotted: control)"
    label(panels[1], title=title, y="1e-3 nats², below zero = helpful")
    label(panels[2], title="Influence less its control", x="training step", y="1e-3 nats²")
    label(panels[3], title="Learning coefficient", x="training step")
    for axes in panels:
        step_axis(axes, steps[0], steps[-1])
        axes.legend(fontsize=7, frameon=False)
    for axes in (panels[1], panels[2]):
        axes.axhline(0, color="grey", linewidth=0.6)
    figure.savefig(path, dpi=110)


def draw_text(output: Path, step: int, path: Path) -> None:
    """Saves the coloured text of a sweep with a query at one step, as shown in TensorBoard."""
    events = EventAccumulator(str(output / "tokens"), size_guidance={"images": 0}).Reload()
    images = {event.step: event.encoded_image_string for event in events.Images(tags.TOKEN_COLOURS)}
    path.write_bytes(images[step])


def own_influence(output: Path, step: int, name: str) -> xr.DataArray:
    """Returns the influence of each class on itself through each head, ``[group, component]``.

    NaN for a class with losses in only one sample.
    """
    folders = sorted(path for path in (output / "components").iterdir() if path.is_dir())
    columns = {}
    for folder in folders:
        values = open_run(folder)[name].sel(step=step)
        columns[folder.name] = np.diag(values.transpose("group", "group_j").values)
        groups = values["group"].values
    return xr.DataArray(
        np.stack(list(columns.values()), axis=1), {"group": groups, "component": list(columns)}, ("group", "component")
    )


def head_numbers(output: Path) -> dict[str, Any]:
    """Returns standardised influence by head, with its control, and the principal components of the responses."""
    steps = sorted(pd.read_csv(output / "components.csv")["step"].unique().tolist())
    circuits = pd.read_csv(output / "circuits.csv").set_index("step")
    found: dict[str, Any] = {}
    for step in steps:
        chains = own_influence(output, step, "control_probe_bif").dropna("group")
        control, errors = (
            own_influence(output, step, name).sel(group=chains["group"])
            for name in ("control_group_bif", "control_probe_bif_se")
        )
        responses = component_responses(output, step)
        relative = component_responses(output, step, relative=True)
        principal = principal_responses(responses["response"])
        heads = circuits.loc[step]
        runs = [open_run(output / "components" / str(name)).sel(step=step) for name in chains["component"].values]
        found[str(step)] = {
            "groups": chains["group"].values.tolist(),
            "heads": chains["component"].values.tolist(),
            "influence": chains.values.tolist(),
            "influence_se": errors.values.tolist(),
            "standardised": standardized_columns(chains).values.tolist(),
            "control_standardised": standardized_columns(control).values.tolist(),
            "response_groups": responses["group"].values.tolist(),
            "response": responses["response"].values.tolist(),
            "response_se": responses["response_se"].values.tolist(),
            "relative_response": relative["response"].values.tolist(),
            "relative_response_se": relative["response_se"].values.tolist(),
            "llc": [float(run["llc"]) for run in runs],
            "llc_se": [float(run["llc_se"]) for run in runs],
            "llc_chains": [int(run["llc_chains"]) for run in runs],
            "equilibrated": [bool(run["equilibrated"]) for run in runs],
            "principal_shares": principal.shares.values.tolist(),
            "principal_scores": principal.scores.values.tolist(),
            "principal_loadings": principal.loadings.values.tolist(),
            "prefix_matching": heads["prefix_matching"].tolist(),
            "previous_token": heads["previous_token"].tolist(),
        }
    return found


def draw_heads(found: dict[str, Any], path: Path) -> None:
    """Draws standardised maps of classes by heads, with their control below."""
    figure = new_figure(5.2 * len(found) + 1, 7, "Influence of classes on themselves by head, each column standardised")
    panels = figure.subplots(2, len(found), squeeze=False)
    for column, (step, one) in enumerate(found.items()):
        for axes, key, name in zip(panels[:, column], ("", "control_"), ("chains", "without the loss"), strict=True):
            image = axes.imshow(one[f"{key}standardised"], cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
            label(axes, title=f"step {int(step):,}, {name}")
            heads = list(map(short_name, one["heads"]))
            axes.set_xticks(range(len(heads)), heads, fontsize=7, rotation=90)
            axes.set_yticks(range(len(one["groups"])), one["groups"] if column == 0 else [], fontsize=7)
    figure.colorbar(
        image, ax=panels, shrink=0.5, label="standard deviations, below zero = more helpful than other classes"
    )
    figure.savefig(path, dpi=110)


def draw_head_coefficients(found: dict[str, Any], path: Path) -> None:
    """Draws the learning coefficient of each head over steps; induction and previous-token heads in colour."""
    steps = [int(step) for step in found]
    cells = list(found.values())
    values, errors, chains, good, prefix, previous = (
        np.array([one[name] for one in cells])
        for name in ("llc", "llc_se", "llc_chains", "equilibrated", "prefix_matching", "previous_token")
    )
    half = errors * stdtrit(chains - 1, 0.975)
    kinds = [
        ("induction head", COLOURS[1], prefix.max(axis=0) > PREFIX_SCORE),
        ("previous-token head", COLOURS[0], previous.max(axis=0) > PREVIOUS_SCORE),
        ("other heads", "#999999", np.ones(values.shape[1], dtype=bool)),
    ]
    figure = new_figure(6.4, 3.8, "Learning coefficients by head, each from chains that move this head alone")
    axes = figure.subplots()
    taken = np.zeros(values.shape[1], dtype=bool)
    for kind, colour, chosen in kinds:
        for number, place in enumerate(np.flatnonzero(chosen & ~taken)):
            curve, bars = values[:, place], half[:, place]
            axes.errorbar(steps, curve, bars, color=colour, capsize=2, label=None if number else kind)
            fill = [colour if settled else "white" for settled in good[:, place]]
            axes.scatter(steps, curve, color=fill, edgecolors=colour, s=18, zorder=3)
            if kind != "other heads":
                axes.annotate(
                    short_name(cells[0]["heads"][place]),
                    (steps[-1], curve[-1]),
                    xytext=(6, -3),
                    textcoords="offset points",
                    fontsize=8,
                )
        taken |= chosen
    step_axis(axes, steps[0], steps[-1])
    axes.set_xlim(steps[0] * 0.95, steps[-1] * 1.1)
    label(axes, x="training step", y="learning coefficient")
    axes.set_ylim(top=1.15 * (values + half).max())  # room for the legend
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--text", type=int, metavar="STEP")
    given = parser.parse_args()
    found: dict[str, Any] = {"classes": numbers(given.output)}
    if given.heads is not None:
        found["heads"] = head_numbers(given.heads)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if given.figures is not None:
        draw_classes(found["classes"], given.figures / "suite.png")
        if given.text is not None:
            draw_text(given.output, given.text, given.figures / "suite_text.png")
        if "heads" in found:
            draw_heads(found["heads"], given.figures / "suite_heads.png")
            if len(found["heads"]) > 1:
                draw_head_coefficients(found["heads"], given.figures / "suite_head_llc.png")


if __name__ == "__main__":
    main()
