"""Arms of the experiment: training steps and samples with changed weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from stagewise.interventions.span import Span


class Arm(StrEnum):
    """Intervention in a run. All windows have one length, except for ``whole``, which spreads the same budget.

    Members, by their names in YAML:
        none: no intervention; observed by the influence callback to place the windows of the other arms.
        inside: the window starts at the onset of the group's influence.
        inside_within: the window starts at the onset by the within part of the influence alone.
        just_before: the window ends at the onset.
        far_before: the window starts ``lead`` steps before the onset.
        earliest: the window starts with training.
        just_after: the window starts where that of ``inside`` ends.
        after: the window starts at the peak of the group's influence.
        whole: every step up to the end, with a factor that moves the same total mass.
        random: a window at the onset for random samples, as many as in the group.
        placebo: weights stay 1; the order of the samples differs.
        live: the online detector opens the window during training.
    """

    none = "none"
    inside = "inside"
    inside_within = "inside_within"
    just_before = "just_before"
    far_before = "far_before"
    earliest = "earliest"
    just_after = "just_after"
    after = "after"
    whole = "whole"
    random = "random"
    placebo = "placebo"
    live = "live"


UNWEIGHTED = (Arm.none, Arm.placebo)
"""Arms whose weights stay 1, so that the mechanism is irrelevant."""

PROBED = (Arm.none, Arm.live)
"""Arms whose runs have the influence callback, if the experiment has one."""

INFLUENCED = (Arm.inside_within, Arm.after, Arm.live)
"""Arms whose windows are placed by influence, whatever the definition of the onset."""

_SWEEP = "start_"


def sweep_name(start: int) -> str:
    """Returns the name of the arm of the sweep whose window starts at a step."""
    return f"{_SWEEP}{start}"


def sweep_start(name: str) -> int | None:
    """Returns the start of the window of an arm of the sweep; None for other arms."""
    number = name.removeprefix(_SWEEP)
    return int(number) if name.startswith(_SWEEP) and number.isdigit() else None


@dataclass(frozen=True)
class Placed:
    """Window of an arm in a run.

    Attributes:
        span: training steps with changed weights; None if the arm has none, or cannot be run.
        note: deviation from the definition of the arm, or the reason why it cannot be run; else empty.
        possible: True if the arm can be run.
    """

    span: Span | None
    note: str = ""
    possible: bool = True


def place(name: str, timeline: Mapping[str, int | None], *, length: int, lead: int, max_steps: int) -> Placed:
    """Places the window of an arm in a run.

    Args:
        name: of the arm, or of an arm of the sweep.
        timeline: of the observed run: ``onset``, ``within_onset``, ``peak`` and ``first_probe``, training steps; None
            if not found.
        length: of the window, training steps.
        lead: steps by which ``far_before`` starts before the onset.
        max_steps: of the run.
    """
    start, note = sweep_start(name), ""
    if start is None:
        arm = Arm(name)
        if arm in (Arm.none, Arm.placebo, Arm.live):
            return Placed(None)
        if arm is Arm.whole:
            return Placed(Span(0, max_steps))
        if arm is Arm.earliest:
            start = 0
        else:
            needed = {Arm.after: "peak", Arm.inside_within: "within_onset"}.get(arm, "onset")
            found = timeline[needed]
            if found is None:
                return Placed(None, f"the observed run has no {needed}", possible=False)
            if arm is not Arm.after and found == timeline.get("first_probe"):
                note = "the onset is at the first probe: it may lie before it"
            shift = {Arm.just_before: -length, Arm.far_before: -lead, Arm.just_after: length}.get(arm, 0)
            start = found + shift
    if start < 0:
        note, start = f"the window would start at step {start}; it starts at 0", 0
    if start >= max_steps:
        return Placed(None, f"the window would start at step {start} of {max_steps}", possible=False)
    end = start + length
    if end > max_steps:
        note, end = f"the window is cut off at the end of the run, step {max_steps}", max_steps
    return Placed(Span(start, end), note)


def spread_factor(factor: float, share: float, *, length: int, max_steps: int) -> float:
    """Returns the factor that moves as much mass over a whole run as another factor does in a window.

    With mass preserved, a group of share q and factor f has rho = f / (q f + 1 - q) times its ordinary weight, so that
    (rho - 1) times the steps is the budget.

    Args:
        factor: in the window.
        share: of the group in the training samples, 0 to 1.
        length: of the window, training steps.
        max_steps: of the run.
    """
    rho = 1 + (factor / (share * factor + 1 - share) - 1) * length / max_steps
    return rho * (1 - share) / (1 - share * rho)
