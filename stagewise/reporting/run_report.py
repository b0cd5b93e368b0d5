"""Report of a run in words and figures: what its influence curves show, and what they do not."""

from pathlib import Path

import numpy as np
import xarray as xr
from torch.utils.tensorboard import SummaryWriter

from stagewise.files.writing import write_json, write_text_file
from stagewise.influence.bif import SIGN
from stagewise.reporting.class_maps import class_maps
from stagewise.reporting.classes_page import classes_section
from stagewise.reporting.control_curves import control_curves
from stagewise.reporting.influence_curves import influence_curves
from stagewise.reporting.llc_curves import llc_curves, llc_words
from stagewise.reporting.scores import Score, read_scores
from stagewise.reporting.tensorboard import write_run_pictures
from stagewise.runs.control import ControlFindings, control_findings
from stagewise.runs.learning_coefficients import has_llc, no_llc_words
from stagewise.runs.moving_groups import moves
from stagewise.runs.sign_changes import SignChanges, find_sign_changes
from stagewise.runs.summary_file import summary_of
from stagewise.runs.words import about, verdict_text, windows_text, with_plain_names

REPORT_NAME, CHANGES_NAME = "report.md", "sign_changes.json"

_UNITS = {"icl_score": " nats", "loss_gap": " nats"}


def _control(control: ControlFindings | None, picture: str | None) -> list[str]:
    if control is None or picture is None:
        return [
            "No loss-free control was run: set `probe.control_every` to see which effects survive without the loss."
        ]
    return [control.markdown(), picture]


def _score_line(score: Score) -> str:
    unit = _UNITS.get(score.name, "")
    rise = score.rise()
    when = "-" if rise is None else f"{rise[0]:,} to {rise[1]:,}"
    low, high = int(np.argmin(score.values)), int(np.argmax(score.values))
    return (
        f"| {score.name} | {score.values[0]:.3f}{unit} | {score.values[-1]:.3f}{unit} | {score.values[low]:.3f} at "
        f"{score.steps[low]:,} | {score.values[high]:.3f} at {score.steps[high]:,} | {when} |"
    )


def _scores(run: xr.Dataset, scores: list[Score]) -> str:
    if not scores:
        return "No score of heads was measured (`InductionCallback`, or a sweep with circuits)."
    lines = ["| score | first | last | lowest | highest | rises (1/4 to 3/4 of its way) |", "|---|---|---|---|---|---|"]
    parts = ["\n".join([*lines, *map(_score_line, scores)])]
    for score in scores:
        rise = score.rise()
        if score.name not in ("prefix_matching", "previous_token") or rise is None:
            continue
        found = moves(run, *rise)
        if not found:
            parts.append(f"While {score.name} rises there are no probes in equilibrium around it.")
            continue
        said = [
            f"{move.group} {move.before:+.2e} to {move.after:+.2e} (z {move.z:+.1f})" for move in found if move.sure
        ] or ["none beyond its errors"]
        still = [move.group for move in found if not move.sure]
        parts.append(
            f"**While {score.name} rises**, steps {rise[0]:,} to {rise[1]:,}, the influence of these groups on "
            f"themselves changes (within, nats²): {'; '.join(said)}."
            + (f" Indistinguishable from noise: {', '.join(still)}." if still else "")
        )
    return "\n\n".join(parts)


def _write_events(output: Path, run: xr.Dataset) -> None:
    """Images for TensorBoard, in place of those of an earlier report."""
    for earlier in output.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(output)) as writer:
        write_run_pictures([writer], run)


def write_run_report(folder: Path, run: xr.Dataset, output: Path, *, chance: float = 0.05) -> tuple[Path, SignChanges]:
    """Writes ``report.md``, its figures and ``sign_changes.json``, and the figures for TensorBoard.

    Args:
        folder: of the run, where its scores are looked for.
        run: as :func:`stagewise.runs.store.open_run` returns it, with group influence and two probes or more.
        output: folder for the files.
        chance: see :func:`~stagewise.runs.sign_changes.find_sign_changes`; also that of a stage boundary.

    Returns:
        Path of the report, and the sign changes.

    Raises:
        InputError: no group influence, or a single probe.
    """
    summary = summary_of(run)
    run = with_plain_names(run)
    changes = find_sign_changes(run, chance=chance)
    verdict = verdict_text(run, summary)
    figures = {
        "curves_within": influence_curves(run, part="within"),
        "classes_within": class_maps(run, part="within"),
    }
    control = control_findings(run)
    if control is not None:
        figures["control"] = control_curves(run)
    captions = {
        "control": "Influence within each probe, and of chains without the loss, from the same noise.",
        "curves_within": "Influence of groups on each other, within the present phase.",
        "classes_within": "Influence of each group on each other one, at some probes.",
    }
    if has_llc(run):
        figures["llc"] = llc_curves(run)
        captions["llc"] = "Local learning coefficient of all losses and of each group."
    output.mkdir(parents=True, exist_ok=True)
    pictures = {}
    (output / "control.png").unlink(missing_ok=True)
    for name, figure in figures.items():
        figure.savefig(output / f"{name}.png", dpi=110)
        pictures[name] = f"![{captions[name]}]({name}.png)\n\n*{captions[name]}*"
    _write_events(output, run)
    write_json(
        output / CHANGES_NAME,
        {
            "sign": SIGN,
            "chance_of_one_curve": changes.chance,
            "curves": changes.num_curves,
            "probes": changes.num_probes,
            "changes": [change.record() for change in changes.found],
        },
    )
    parts = ["# What the influence of this run shows", "## Verdict", verdict, "## The run", about(run, summary)]
    parts += ["## Sign changes", changes.markdown(), "## Heads", _scores(run, read_scores(folder))]
    if has_llc(run):
        parts += ["## Learning coefficient", llc_words(run, chance=chance), pictures.pop("llc")]
    else:
        parts += ["## Learning coefficient", no_llc_words(run)]
    parts += ["## Loss-free control", *_control(control, pictures.pop("control", None))]
    parts += ["## Transition windows", windows_text(summary, run)]
    classes = classes_section(folder)
    parts += [] if classes is None else [classes]
    parts += ["## Curves", *pictures.values()]
    return write_text_file(output / REPORT_NAME, "\n\n".join(parts) + "\n"), changes
