"""Sections of the report of one run, in order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from stagewise.checks.counted import counted
from stagewise.reporting.classes_page import classes_section
from stagewise.reporting.control_curves import control_curves
from stagewise.reporting.html.blocks import Block, Items, Section, Table, Text, of_markdown, table_of
from stagewise.reporting.html.matrices import group_matrices, sample_matrices
from stagewise.reporting.html.pictures import picture
from stagewise.reporting.html.repeating import as_python, from_command_line, repeat_section, settings_section
from stagewise.reporting.html.sample_section import samples_section
from stagewise.reporting.html.spans_section import spans_section
from stagewise.reporting.html.window_sections import windows_section
from stagewise.reporting.influence_curves import influence_curves
from stagewise.reporting.llc_curves import llc_curves, llc_words
from stagewise.reporting.overview import overview
from stagewise.reporting.sample_tables import no_ranking_words, sample_tables
from stagewise.reporting.score_words import scores_markdown
from stagewise.reporting.scores import Score
from stagewise.reporting.spans_table import BESIDE_SIGN_CHANGES
from stagewise.reporting.verdict_line import known_verdict
from stagewise.runs.control import control_findings
from stagewise.runs.curves import curve_pairs, usable_probes
from stagewise.runs.equilibrium import flag_counts, unsettled_words
from stagewise.runs.llc_table import has_llc, no_llc_words
from stagewise.runs.sign_changes import SignChanges
from stagewise.runs.summary_file import summary_of

NARROW = 5.0
"""Width in inches of a picture for a phone."""

_QUESTIONS = {
    "positions": "Positions: where curves turn and peak",
    "signs": "Signs: helpful or harmful",
    "heights": "Heights: how much",
    "landscape": "Beyond gradients: more than their dot product, by the loss-free control",
}
_DIAGNOSTICS = {
    "equilibrated": "in equilibrium",
    "chains_common": "chains",
    "rhat_groups": "R-hat",
    "ess_groups": "effective draws",
    "minibatch_noise": "heat",
    "loss_rise": "loss rise, nats",
    "seconds": "seconds",
    "flag_names": "flags",
}


def run_sections(
    run: xr.Dataset,
    folder: Path,
    changes: SignChanges,
    scores: Sequence[Score],
    *,
    chance: float = 0.05,
    figures: Mapping[str, Figure] | None = None,
) -> list[Section]:
    """Returns the sections of one run in reading order, without empty ones.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with plain names of groups.
        folder: of the run.
        changes: its sign changes.
        scores: of its heads; empty if not measured.
        chance: of a stage boundary in a learning coefficient.
        figures: already drawn, by name: ``curves_within``, ``llc``, ``control``.
    """
    drawn = {} if figures is None else figures
    found = [
        verdict_section(run),
        overview_section(run, scores),
        spans_section(run),
        windows_section(run),
        signs_section(run, changes, drawn.get("curves_within")),
        samples_section(run),
        _coefficients(run, chance, drawn.get("llc")),
        Section("matrices", "Matrices", tuple(item for item in (group_matrices(run), sample_matrices(run)) if item)),
        Section("scores", "Heads", tuple(of_markdown(scores_markdown(run, scores)) if scores else ())),
        _control(run, drawn.get("control")),
        _groups(folder),
        _diagnostics(run),
        settings_section(run),
        repeat_section(run, folder),
        _lacking(run, scores, folder),
    ]
    return [item for item in found if item.blocks]


def verdict_section(run: xr.Dataset) -> Section:
    """Returns the section on what can be read off the curves.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    record = known_verdict(run)
    if record is None:
        return Section("verdict", "Verdict")
    rows = [(words, record[name].get("answer"), record[name].get("why")) for name, words in _QUESTIONS.items()]
    blocks: list[Block] = [table_of([("can be read off", "", "why"), *rows])]
    best = record.get("best")
    change = best.get("words") if isinstance(best, Mapping) else None
    blocks.append(Text(f"**What would help most**: {change or 'no change is needed'}."))
    summary = summary_of(run)
    if summary.get("complete") is False or "probes" not in summary:
        blocks.append(Text("The run has not come to its end: this is of the probes so far.", quiet=True))
    return Section("verdict", "Verdict", tuple(blocks))


def overview_section(run: xr.Dataset, scores: Sequence[Score]) -> Section:
    """Returns the section with the overview, wide and narrow.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        scores: of its heads.
    """
    wide, narrow = (overview(run, scores=scores, width=width) for width in (10.0, NARROW))
    about = "Overview: losses, scores, influence of the strongest groups, learning coefficient and signal over training"
    sign = (
        "Influence is minus the covariance of losses over the draws, in nats²: **negative = helpful**, more weight on "
        "one lowers the loss of the other. Windows are shaded."
    )
    return Section("overview", "Overview", (picture(wide, about, narrow=narrow), Text(sign, quiet=True)))


def signs_section(run: xr.Dataset, changes: SignChanges, figure: Figure | None = None) -> Section:
    """Returns the section on sign changes with their chance, one-sided curves, and the curves themselves.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        changes: its sign changes.
        figure: of the curves, if already drawn.
    """
    blocks = of_markdown(changes.markdown())
    if usable_probes(run).any():
        blocks.append(Text(BESIDE_SIGN_CHANGES, quiet=True))
    if curve_pairs(run):
        blocks.append(
            picture(
                figure or influence_curves(run),
                "Influence of groups over training, a panel for each pair, with intervals",
            )
        )
    return Section("signs", "Sign changes", tuple(blocks))


def _coefficients(run: xr.Dataset, chance: float, figure: Figure | None) -> Section:
    title = "Learning coefficient"
    if not has_llc(run):
        return Section("llc", title)
    about = "Local learning coefficient of all losses and of each group over training"
    return Section(
        "llc", title, (*of_markdown(llc_words(run, chance=chance)), picture(figure or llc_curves(run), about))
    )


def _control(run: xr.Dataset, figure: Figure | None) -> Section:
    found = control_findings(run)
    if found is None:
        return Section("control", "")
    about = "Influence within each probe, and of chains without the loss, from the same noise"
    blocks = (*of_markdown(found.markdown()), picture(figure or control_curves(run), about))
    return Section("control", "Loss-free control", blocks)


def _groups(folder: Path) -> Section:
    text = classes_section(folder)
    if text is None:
        return Section("groups", "")
    head, _, rest = text.partition("\n")
    return Section("groups", head.lstrip("# ").strip() or "Observed groups", tuple(of_markdown(rest)))


def _diagnostics(run: xr.Dataset) -> Section:
    summary, probes = summary_of(run), run.sizes["step"]
    lines = []
    flags = flag_counts(run)
    if flags:
        named = ", ".join(f"{name} at {count}" for name, count in flags.items())
        lines.append(f"Flags: {named} of {counted(probes, 'probe')}.")
    elif "flag_names" in run:
        lines.append(f"Flags: none at {counted(probes, 'probe')}.")
    if "equilibrated" in run:
        lines.append(f"Equilibrium: {unsettled_words(run) or 'all probes are in it'}.")
    if isinstance(summary.get("overhead"), float):
        lines.append(f"Overhead: probes took {summary['overhead']:.2g} times as long as training.")
    if summary.get("chains_dropped"):
        lines.append(f"Chains that diverged and were left out: {summary['chains_dropped']}.")
    for name, words in (("failed_steps", "Probes that lost all their chains"), ("skipped_steps", "Probes skipped")):
        if summary.get(name):
            lines.append(f"{words}, at steps {', '.join(map(str, summary[name][:20]))}.")
    blocks: list[Block] = [Items(tuple(lines))] if lines else []
    advice = (known_verdict(run) or {}).get("flags")
    if isinstance(advice, Mapping) and advice:
        rows = [
            (name, item.get("probes"), item.get("remedy")) for name, item in advice.items() if isinstance(item, Mapping)
        ]
        blocks.append(table_of([("flag", "probes", "what to set"), *rows]))
    table = _probe_table(run)
    return Section("diagnostics", "Diagnostics", (*blocks, *([] if table is None else [table])))


def _probe_table(run: xr.Dataset) -> Table | None:
    """Returns a collapsed table with a row for each probe."""
    names = [name for name in _DIAGNOSTICS if name in run and run[name].dims == ("step",)]
    if not names:
        return None
    rows = [
        (f"{int(step):,}", *(_cell(name, run[name].values[place]) for name in names))
        for place, step in enumerate(run["step"].values)
    ]
    most = 200
    shown = rows if len(rows) <= most else rows[-most:]
    words = "Each probe" if len(rows) <= most else f"The last {most} of {counted(len(rows), 'probe')}"
    return table_of([("step", *(_DIAGNOSTICS[name] for name in names)), *shown], summary=words)


def _cell(name: str, value: Any) -> str:
    if name == "flag_names":
        return str(value) or "-"
    if name == "equilibrated":
        return "yes" if value else "no"
    return "-" if not np.isfinite(value) else f"{value:.3g}"


def _lacking(run: xr.Dataset, scores: Sequence[Score], folder: Path) -> Section:
    """Returns the section on what the run did not measure, and the settings that measure it."""
    lines = []
    if not has_llc(run):
        lines.append(no_llc_words(run))
    if "control_group_bif" not in run:
        lines.append(
            "No loss-free control: set `influence.probe.control_every: 5` to see which effects survive without the "
            "loss."
        )
    elif control_findings(run) is None:
        lines.append(
            "The loss-free control was run, but no probe in equilibrium has one with two chains: see the flags, and "
            "lower `influence.probe.control_every`."
        )
    if not scores:
        lines.append("No scores of heads: add `InductionCallback` to the Trainer, for language models.")
    if not _no_matrices(run) and sample_tables(run) is None:
        lines.append(no_ranking_words(run))
    if _no_matrices(run):
        lines.append("No influence between samples: set `influence.probe.sample_matrices: within`.")
    if not from_command_line(folder):
        lines = [as_python(line) for line in lines]
    return Section("lacking", "Not measured", (Items(tuple(lines)),) if lines else ())


def _no_matrices(run: xr.Dataset) -> bool:
    return not {"bif", "bif_within"} & set(run)
