"""Verdict on what can be read off the curves of a run, shared by all reports."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import xarray as xr

from stagewise.checks.counted import counted
from stagewise.probes.flags import FLAG_NAMES, Thresholds, advice, without_larger_lr
from stagewise.runs.best_setting import Remedy, best_remedy, stable_settings
from stagewise.runs.control import ControlFindings, control_findings
from stagewise.runs.equilibrium import flag_counts
from stagewise.runs.evidence import RunFigures, run_figures
from stagewise.runs.run_windows import run_windows
from stagewise.runs.stability import Stability, stability_of
from stagewise.runs.summary_file import summary_of

MOST, HALF = 0.8, 0.5
"""Shares of the probes in equilibrium for "yes", and below which the answer is "no"."""

_NARROW = 0.3
"""Half an interval over the value below which heights are readable."""

_READINGS = ("positions", "signs", "heights", "landscape")
"""Keys of a written verdict; those of earlier versions may lack some."""

VARIABLES = (
    "group_bif",
    "group_bif_se",
    "group_loss",
    "chains_common",
    "chains_dropped",
    "equilibrated",
    "reference_equilibrated",
    "flag_names",
    "rhat_groups",
    "ess_groups",
    "minibatch_noise",
    "control_group_bif",
    "control_group_bif_se",
    "control_probe_bif",
    "control_probe_bif_se",
    "control_difference",
    "control_difference_se",
    "control_chains",
)
"""Variables of a run that a verdict needs."""


class Answer(StrEnum):
    """Answer to whether something can be read off the curves; ``not known`` only if a control is needed."""

    yes = "yes"
    partly = "partly"
    no = "no"
    unknown = "not known"


@dataclass(frozen=True)
class Reading:
    """Answer for one aspect of the curves.

    Attributes:
        answer: yes, partly, no or not known.
        why: reason for the answer.
        remedy: setting for a better answer; None if not needed, or if no setting would help.
    """

    answer: Answer
    why: str
    remedy: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Verdict on what can be read off the curves of a run.

    Attributes:
        positions: training steps at which curves turn and peak.
        signs: helpful or harmful.
        heights: size of the influence.
        landscape: comparison with gradients, by the loss-free control.
        best: most useful change of a setting; None if none is needed.
        flags: name of a flag to the number of probes with it and its remedy, which refers to ``best``.
        probes: number of probes that were kept.
        lost: number, steps and cause of probes that lost all their chains, in words; None if there are none.
        num_lost: number of these.
    """

    positions: Reading
    signs: Reading
    heights: Reading
    landscape: Reading
    best: Remedy | None
    flags: Mapping[str, tuple[int, str]]
    probes: int
    lost: str | None = None
    num_lost: int = 0

    def readings(self) -> dict[str, Reading]:
        """Returns the readings by name, in order."""
        return {name: getattr(self, name) for name in ("positions", "signs", "heights", "landscape")}

    def record(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            **{
                name: {"answer": str(reading.answer), "why": reading.why, "remedy": reading.remedy}
                for name, reading in self.readings().items()
            },
            "best": None if self.best is None else self.best.record(),
            "flags": {name: {"probes": count, "remedy": what} for name, (count, what) in self.flags.items()},
            "probes": self.probes,
            "probes_due": self.probes + self.num_lost,
            "lost": self.lost,
            "text": self.text(),
        }

    def text(self) -> str:
        """Renders the verdict as Markdown that reads as plain text too, for terminal, TensorBoard, file and report."""
        titles = {
            "positions": "Positions (where curves turn and peak)",
            "signs": "Signs (helpful or harmful)",
            "heights": "Heights (how much)",
            "landscape": "Beyond gradients (loss-free control)",
        }
        lines = ["What can be read off these curves:", ""]
        lines += [
            f"- {titles[name]}: **{reading.answer}**. {reading.why}." for name, reading in self.readings().items()
        ]
        if self.lost is not None:
            due = self.probes + self.num_lost
            lines += ["", f"**Lost**: {self.probes} of {counted(due, 'probe')} were kept. {self.lost}."]
        best = "no change is needed" if self.best is None else self.best.words
        lines += ["", f"What would help most: {best}."]
        if self.flags:
            lines += ["", "Flags and remedies:", ""]
            lines += [
                f"- {name}, {count} of {counted(self.probes, 'probe')}: {what}"
                for name, (count, what) in self.flags.items()
            ]
        return "\n".join(lines)


def verdict_record(run: xr.Dataset) -> Mapping[str, Any]:
    """Returns the verdict of a run as plain data, see :meth:`Verdict.record`: the written one, or one made now.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.

    Raises:
        InputError: the data set lacks its settings, or its summary is invalid.
    """
    summary = summary_of(run)
    written = summary.get("verdict")
    if written is not None and all(isinstance(written.get(name), Mapping) for name in _READINGS):
        return dict(written)
    # A summary of an earlier version may count flags that no longer exist.
    flags = {name: count for name, count in summary.get("flags", {}).items() if name in FLAG_NAMES}
    return judge(run, windows=len(run_windows(run)), flags=flags or None).record()


def _limits(run: xr.Dataset | None) -> Thresholds:
    """Returns the limits of a run's flags; the defaults where its summary has none, or it has no summary."""
    known = {field.name for field in fields(Thresholds)}
    written = {} if run is None else summary_of(run).get("thresholds", {})
    return Thresholds(**{name: value for name, value in written.items() if name in known})


def judge(
    run: xr.Dataset | None,
    *,
    windows: int,
    thresholds: Thresholds | None = None,
    flags: Mapping[str, int] | None = None,
    stability: Stability | None = None,
) -> Verdict:
    """Assesses a run by its data: flags, equilibrium, effective draws, heat, intervals, control and windows.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it, :data:`VARIABLES` of it at least; None if there are no
            probes.
        windows: number of transition windows.
        thresholds: limits of the run's flags; those of its summary, or the defaults, if None.
        flags: number of probes with each flag; counted from the run if None.
        stability: lost probes, and findings on the settings; those of the run's summary if None.

    Raises:
        InputError: the data set lacks its settings, or its summary is invalid.
    """
    steady = stability_of(run) if stability is None else stability
    limits = thresholds or _limits(run)
    counts = ({} if run is None else flag_counts(run)) if flags is None else flags
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    advised = {name: advice(name) if steady.lr is None else without_larger_lr(advice(name)) for name, _ in ordered}
    remedies = {name: (count, advised[name]) for name, count in ordered}
    if run is None or "group_bif" not in run:
        kept = 0 if run is None else run.sizes["step"]
        why = "No probe with group influence was kept" + (f"; {steady.words}" if steady.words else "")
        best = stable_settings(steady, kept, {})
        nothing = Reading(Answer.no, why, None if best is None else best.words)
        return Verdict(
            nothing, nothing, nothing, nothing, best, remedies, kept, lost=steady.words, num_lost=len(steady.lost)
        )
    figures = run_figures(run)
    control = control_findings(run)
    best = best_remedy(figures, limits, control, remedies, steady)
    help_first = None if best is None else best.words
    readings = {
        "positions": _positions(figures, steady, windows, help_first),
        "signs": _signs(figures, steady, help_first),
        "heights": _heights(figures, steady, limits, help_first),
    }
    if best is None and any(reading.answer is not Answer.yes for reading in readings.values()):
        partly = ", ".join(name for name, reading in readings.items() if reading.answer is not Answer.yes)
        best = Remedy("", "", None, f"see the reasons given for {partly}", advice="no one setting stands out")
    remedies = {name: (count, _after(best, what)) for name, (count, what) in remedies.items()}
    return Verdict(
        positions=readings["positions"],
        signs=readings["signs"],
        heights=readings["heights"],
        landscape=_landscape(control),
        best=best,
        flags=remedies,
        probes=figures.probes,
        lost=steady.words,
        num_lost=len(steady.lost),
    )


def _after(best: Remedy | None, advice: str) -> str:
    """Makes the advice for a flag secondary to the most helpful change of a setting, so that the two never compete."""
    if best is None or not best.setting:
        return advice
    if best.setting in advice:
        return f"the change of {best.setting} that would help most is for this too"
    return f"if it stays after the change of {best.setting}: {advice}"


def _equilibrium(figures: RunFigures, stability: Stability) -> str:
    if figures.settled is None:
        return (
            f"{counted(figures.probes, 'probe')}, written by an earlier version that does not record whether chains "
            "had reached equilibrium"
        )
    due = figures.probes + len(stability.lost)
    return f"{figures.settled} of {counted(due, 'probe')} in equilibrium{_lost(stability)}"


def _lost(stability: Stability) -> str:
    return f", {len(stability.lost)} lost" if stability.lost else ""


def _gaps(figures: RunFigures, stability: Stability) -> str:
    """Describes the probes in equilibrium, and the steps that cannot be read at all."""
    lost = f"; {stability.words}" if stability.words else ""
    unread = f"; {figures.unread}" if figures.unread else ""
    return f"{_equilibrium(figures, stability).removesuffix(_lost(stability))}{lost}{unread}"


def _by_equilibrium(figures: RunFigures, stability: Stability) -> Answer:
    if figures.settled is None:
        return Answer.partly
    share = figures.settled / (figures.probes + len(stability.lost))
    return Answer.yes if share >= MOST else Answer.partly if share >= HALF else Answer.no


def _worse(*answers: Answer) -> Answer:
    order = (Answer.no, Answer.partly, Answer.yes)
    return min(answers, key=order.index)


def _positions(figures: RunFigures, stability: Stability, windows: int, help_first: str | None) -> Reading:
    found = f"{windows} transition window{'' if windows == 1 else 's'} found"
    answer = _by_equilibrium(figures, stability)
    why = f"{_gaps(figures, stability)}; {found}"
    if figures.probes < 3:
        answer, why = Answer.no, f"{counted(figures.probes, 'probe')}: three or more are needed for a peak"
    elif not windows:
        answer, why = _worse(answer, Answer.partly), f"{why}: no peak of the between part stands out"
    return Reading(answer, why, None if answer is Answer.yes else help_first)


def _signs(figures: RunFigures, stability: Stability, help_first: str | None) -> Reading:
    if figures.told_share is None:
        why = f"{_gaps(figures, stability)}; no probe has a valid error (two chains or more, in equilibrium)"
        return Reading(Answer.no, why, help_first)
    share = figures.told_share
    # One in twenty differs from zero by chance.
    by_share = Answer.yes if share >= HALF else Answer.partly if share > 0.1 else Answer.no
    answer = _worse(_by_equilibrium(figures, stability), by_share)
    pairs = ", ".join(figures.told_pairs) or "none"
    why = (
        f"{_gaps(figures, stability)}; {100 * share:.0f} % of the influences within phases differ from zero at 95 %, "
        f"each on its own (5 by chance); at most probes: {pairs}; sign changes and sure signs are tested at 95 % over "
        "all probes of a curve at once, so fewer curves pass"
    )
    return Reading(answer, why, None if answer is Answer.yes else help_first)


def _heights(figures: RunFigures, stability: Stability, limits: Thresholds, help_first: str | None) -> Reading:
    answer, reasons = _by_equilibrium(figures, stability), [_equilibrium(figures, stability)]
    if figures.settled is None or figures.half_width is None:
        answer = Answer.no
    if figures.half_width is not None:
        reasons.append(f"intervals of those that differ from zero are ± {100 * figures.half_width:.0f} % in the median")
        answer = _worse(answer, Answer.yes if figures.half_width <= _NARROW else Answer.partly)
    if figures.effective is not None:
        reasons.append(f"{figures.effective:.0f} effective draws in the median")
        if limits.ess_min is not None and figures.effective < limits.ess_min:
            answer = _worse(answer, Answer.partly)
    if figures.heat is not None:
        reasons.append(f"minibatch noise makes them about {100 * figures.heat:.0f} % too large")
        if limits.minibatch_noise_max is not None and figures.heat > limits.minibatch_noise_max:
            answer = _worse(answer, Answer.no if figures.heat > HALF else Answer.partly)
    if figures.dropped:
        reasons.append(f"{counted(figures.dropped, 'chain')} diverged: those left are a biased selection")
        answer = _worse(answer, Answer.partly)
    if figures.centering == "chain":
        reasons.append("centred by chain, which is too low where chains are short")
        answer = _worse(answer, Answer.partly)
    return Reading(answer, "; ".join(reasons), None if answer is Answer.yes else help_first)


def _counted(number: int, one: str, many: str, words: str) -> str:
    """Returns a number with its verb in singular or plural."""
    return f"{number} {one if number == 1 else many} {words}"


def _landscape(control: ControlFindings | None) -> Reading:
    if control is None:
        return Reading(
            Answer.unknown,
            "No loss-free control was run, which shows whether curves say more than gradient dot products",
            "set probe.control_every to 5",
        )
    effects, beyond, alike = (control.total(name) for name in ("effects", "beyond", "alike"))
    if not effects:
        return Reading(Answer.unknown, "The control was run, but no influence differs from zero at its probes")
    outcomes = (
        _counted(beyond, "goes", "go", "beyond the control"),
        _counted(alike, "survives", "survive", "without the loss at the same size"),
        _counted(effects - beyond - alike, "is", "are", "undecided"),
    )
    influences = "influence that differs" if effects == 1 else "influences that differ"
    why = f"Of {effects} {influences} from zero, {', '.join(outcomes)}"
    answer = Answer.yes if beyond >= MOST * effects else Answer.partly if beyond > 0.1 * effects else Answer.no
    further = None if answer is Answer.yes else "lower sgld.localization towards nbeta |lam_min|"
    return Reading(answer, why, further)
