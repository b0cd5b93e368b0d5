"""The report of the intervention experiment, in Markdown."""

from collections.abc import Sequence
from pathlib import Path

from stagewise.experiments.intervention.cell import Cell
from stagewise.experiments.intervention.claims import sorted_claims
from stagewise.experiments.intervention.config import InterventionConfig
from stagewise.experiments.intervention.figures.gallery import write_figures
from stagewise.experiments.intervention.results import Summary, summarize
from stagewise.experiments.intervention.table import arms_table, cells_table, comparisons_table, costs_table
from stagewise.reporting.files import write_text_file

REPORT_NAME = "report.md"

_CAPTIONS = {
    "acceleration": "Training steps saved by each arm; positive: the head forms earlier than without weights.",
    "sweep": "Steps saved against the start of the window.",
    "curves": "Prefix-matching score of the best head.",
    "costs": "What the loss rises by without the best head, and the background loss.",
}

_ARMS = """* `none`: no weights; it is observed, and tells the other arms where their windows are.
* `inside`: the window starts at the onset of the group's influence. `just_before`: it ends there.
* `far_before`: it starts {lead} steps before it. `earliest`: it starts with training. `after`: at its peak.
* `whole`: all steps, with a smaller factor that moves as much mass in all.
* `random`: at the onset, for random samples. `placebo`: weights stay 1, another order of samples.
* `live`: the online detector opens the window in training. `start_N`: the window starts at step N.
* `..._loss`: the same with weights on losses; the others sample the group more often."""


def _set_up(config: InterventionConfig, found: Summary) -> str:
    weights = config.weights
    left = f" Left out, as `none` forms no head: seeds {found['left_out']}." if found["left_out"] else ""
    return (
        f"Does more weight on `{weights.group}` samples in a window of {weights.length} steps make a head form "
        f"earlier, and does it matter when? Their weight is {weights.factor:g}, others keep 1, and the mass of all is "
        f"preserved. Runs of {config.training.max_steps} steps, seeds {', '.join(map(str, found['seeds']))}.{left}\n\n"
        "**Steps saved** = step at which the prefix-matching score of the best head is first measured above .5 in "
        f"`none`, minus that of the arm, same seed, every {config.training.measure_every} steps: **positive: "
        "earlier**. *Gap*: the same for a second copy's loss 1.5 nats below the first's. *Share* of `none`. "
        "*Mean score*: area under it per step. *Background loss*: final, arm minus none, nats, positive = worse. "
        "*Head rise*: how far the loss rises without the best head, arm minus none, nats. *Budget*: mass moved, in "
        "steps. *Censored*: the arm never formed the head; it counts with the end of the run, so that it saves "
        "at most that.\n\n"
        f"**Onset**: start of the unbroken run of probes, up to the peak, at which influence of `{weights.group}` on "
        f"itself exceeds {weights.onset.ratio:g} times that of `{weights.onset.against}`. It is found afterwards.\n\n"
        "Intervals in brackets: 95 % bootstrap over seeds, a little narrow for few seeds. Claims ask that this and "
        "Student's t interval both leave out 0; there are many, and none is corrected for that."
    )


def _notes(found: Summary) -> str:
    lines = [
        f"* `{name}`, seed {seed}: {note}."
        for name, arm in found["arms"].items()
        for seed, note in arm["notes"].items()
    ]
    lines += [f"* `{name}`, seed {seed}: missing." for seed, name in found["missing"]]
    return "\n".join(lines) or "None."


def _windows(found: Summary) -> str:
    names = ["onset", "peak", "t25", "t50", "gap_step"]
    lines = ["| seed | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for seed, row in found["windows"].items():
        lines.append(f"| {seed} | " + " | ".join("-" if row[name] is None else str(row[name]) for name in names) + " |")
    return "\n".join(lines)


def write_report(output: Path, config: InterventionConfig, cells: Sequence[Cell]) -> Path:
    """Write ``report.md`` and ``figures/*.png``; returns the path of the report.

    Args:
        output: folder.
        config: of the experiment.
        cells: finished ones, as for :func:`~stagewise.experiments.intervention.results.summarize`.
    """
    found = summarize(config, cells)
    pictures = write_figures(output / "figures", found, cells)
    parts = ["# Reweighting in a window", _set_up(config, found), _ARMS.format(lead=config.weights.lead)]
    parts += ["## Steps saved", arms_table(found), "## Costs, and what the head bears", costs_table(found)]
    parts += [f"![{_CAPTIONS[name]}](figures/{name}.png)\n\n*{_CAPTIONS[name]}*" for name in pictures]
    for kind, claims in sorted_claims(found).items():
        parts += [f"## What {kind}", "\n".join(f"* {words}" for words in claims)]
    parts += ["## Arms against each other", "Positive: the first is earlier.", comparisons_table(found)]
    parts += ["## Windows of the runs without weights", _windows(found)]
    parts += ["## All cells: steps saved", cells_table(found), "## Missing, or not as defined", _notes(found)]
    return write_text_file(output / REPORT_NAME, "\n\n".join(parts) + "\n")
