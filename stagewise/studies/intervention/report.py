"""Report of the intervention experiment, in Markdown."""

from collections.abc import Sequence
from pathlib import Path

from stagewise.files.writing import write_text_file
from stagewise.studies.intervention.cell import Cell
from stagewise.studies.intervention.claims import answers
from stagewise.studies.intervention.config import InterventionConfig, OnsetSettings
from stagewise.studies.intervention.figures.gallery import write_figures
from stagewise.studies.intervention.results import Summary, early_score, thresholds
from stagewise.studies.intervention.table import (
    arms_table,
    cells_table,
    comparisons_table,
    costs_table,
    detector_markdown,
    say_share,
)

REPORT_NAME = "report.md"

_CAPTIONS = {
    "acceleration": "Training steps saved by each arm; positive: the head forms earlier than without weights.",
    "sweep": "Steps saved against the start of the window.",
    "curves": "Prefix-matching score of the best head.",
    "costs": "What the loss rises by without the best head, and the background loss.",
}

_ARMS = """* `none`: no weights; it is observed, and tells the other arms where their windows are.
* `inside`: the window starts at the onset. `inside_within`: at the onset by the within part of the influence alone.
* `just_before`: it ends at the onset. `far_before`: it starts {lead} steps before it. `earliest`: with training.
* `just_after`: it starts where that of `inside` ends.
* `after`: it starts at the peak of the influence. Where that lies after the head, it can save nothing.
* `whole`: all steps, with a smaller factor that moves as much mass in all.
* `random`: the window of `inside`, for random samples. `placebo`: weights stay 1, another order of samples.
* `live`: the online detector opens the window while the model trains. `start_N`: the window starts at step N.
* `..._loss`: the same with weights on losses; the others sample the group more often."""


_DETECTOR = (
    "Replayed on the undisturbed runs, with the same settings, which suit the signal of `live`: the step at which its "
    "first window opens. All signals are looked at from the first probe at which each is known. A window should open "
    "before the prefix score passes {early} (t25), and not before half of the way to {score} (t50). That is about "
    "timing: what a window at that step saves, the sweep tells."
)


def _onset_words(group: str, onset: OnsetSettings) -> str:
    if onset.by == "score":
        return (
            "the first measurement of `none` at which the prefix-matching score of the best head is above "
            f"{say_share(onset.level)}"
        )
    return (
        f"the start of the unbroken run of probes, up to the peak, at which the {onset.part} part of the influence of "
        f"`{group}` on itself is more than {onset.ratio:g} times that of `{onset.against}`"
    )


def _set_up(config: InterventionConfig, found: Summary) -> str:
    weights, training = config.weights, config.training
    score, gap = say_share(training.score_threshold), training.gap_threshold
    group, background = weights.observed_group, weights.background
    within = f" For `inside_within`: {_onset_words(group, weights.within_onset)}." if config.influence.enabled else ""
    again = (
        " Training may have several epochs, and where a window has used up the samples of the group, they come again."
        if training.when_exhausted == "repeat"
        else ""
    )
    left = f" Left out, as `none` forms no head: seeds {found['left_out']}." if found["left_out"] else ""
    return (
        f"Does more weight on `{weights.group}` samples in a window of {weights.length} steps make a head form "
        f"earlier, and does it matter when? Their weight is {weights.factor:g}, that of others 1, and the mass of all "
        f"is preserved. Seeds {', '.join(map(str, found['seeds']))}, each with its own weights, data and order, which "
        f"all arms of the seed share.{again}{left}\n\n"
        "**Steps saved** = step at which the prefix-matching score of the best head is first measured above "
        f"{score} in `none`, minus that of the arm, same seed, measured every {training.measure_every} steps; "
        f"**positive: the head forms earlier**. Runs have up to {training.max_steps} steps; an arm that never forms "
        "the head counts with these (*censored*: it saves at most that).\n\n"
        f"*At the end* is {training.settle_steps} steps after the head of `none` has formed, the same step for all "
        f"arms of a seed. *Gap*: steps saved until a second copy's loss lies {gap:g} nats below the first's. *Share*: "
        "of the steps of `none`. *Mean score*: area under the prefix score up to the end, per step. *Background loss*: "
        f"of `{background}` at the end, held-out sequences, arm minus none, nats per token, positive = worse. *Head "
        f"rise*: how far the loss of `{group}` rises at the end when the output of the best head is set to zero, arm "
        "minus none, nats per token, positive = the head matters more. *Budget*: mass moved by the weights up to the "
        "end, in steps. *Steps used*: of the window, those before the arm's own head: what comes later cannot hasten "
        "it.\n\n"
        f"**Onset**: {_onset_words(group, weights.onset)}. It is found afterwards, in the whole run.{within}\n\n"
        "Intervals in brackets: 95 % over seeds, by Student's t. Words such as *beats* ask that the interval leaves "
        "out 0; there are many of them, and none is corrected for that."
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
    names = ["onset", "within_onset", "t25", "t50", "gap_step", "peak", "end"]
    if any("influence_onset" in row for row in found["windows"].values()):
        names.insert(1, "influence_onset")
    lines = ["| seed | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for seed, row in found["windows"].items():
        words = ["-" if row.get(name) is None else str(row[name]) for name in names]
        lines.append(f"| {seed} | " + " | ".join(words) + " |")
    return "\n".join(lines)


def write_report(output: Path, config: InterventionConfig, cells: Sequence[Cell], found: Summary) -> Path:
    """Writes ``report.md`` and ``figures/*.png``; returns the path of the report.

    Args:
        output: folder.
        config: of the experiment.
        cells: finished cells.
        found: their results, from :func:`~stagewise.studies.intervention.results.write_results`.
    """
    pictures = write_figures(output / "figures", found, cells)
    parts = ["# Reweighting in a window", _set_up(config, found), _ARMS.format(lead=config.weights.lead)]
    for answer in answers(found):
        parts += [f"## {answer.question}", "\n".join(f"* {line}" for line in answer.lines)]
    parts += ["## Steps saved", arms_table(found), "## Costs, and reliance on the head", costs_table(found)]
    parts += [f"![{_CAPTIONS[name]}](figures/{name}.png)\n\n*{_CAPTIONS[name]}*" for name in pictures]
    if found["detector"]:
        score, _ = thresholds(found)
        words = _DETECTOR.format(early=say_share(early_score(score)), score=say_share(score))
        parts += ["## The online detector on other signals", words, detector_markdown(found)]
    parts += ["## Arms against each other", "Positive: the first is earlier.", comparisons_table(found)]
    parts += ["## Windows of the runs without weights", _windows(found)]
    parts += ["## All cells: steps saved", cells_table(found), "## Missing, or not as defined", _notes(found)]
    return write_text_file(output / REPORT_NAME, "\n\n".join(parts) + "\n")
