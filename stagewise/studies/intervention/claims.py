"""Questions of the study and their answers by the intervals, in words with the direction of the figures."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from stagewise.studies.intervention.results import Summary, early_score, thresholds
from stagewise.studies.intervention.table import say_interval, say_share


class Answer(NamedTuple):
    """Question and its answer by the cells.

    Attributes:
        question: in words.
        lines: statements, each with its figures.
    """

    question: str
    lines: list[str]


def verdict(found: Mapping[str, Any]) -> int | None:
    """Returns 1 or -1 if the interval is on one side of 0, else 0.

    Returns None for a single seed, and if all seeds have the same value other than 0: with measurements every few
    steps, their spread is then unknown.
    """
    if found["low"] is None or (found["low"] == found["high"] and found["mean"] != 0):
        return None
    return 1 if found["low"] > 0 else -1 if found["high"] < 0 else 0


def speed(name: str, arm: Mapping[str, Any]) -> str:
    """Compares the time of the head in an arm with that in the same run without weights."""
    found, censored = arm["acceleration"], arm["censored"]
    sign = verdict(found)
    if sign is not None and sign >= 0 and censored:
        sign = None  # upper bounds can only show a delay
    words = {
        1: "has the head earlier than",
        -1: "has the head later than",
        0: "makes no difference distinguishable from zero to",
        None: "cannot be told (one seed, or seeds without a head) from",
    }[sign]
    bound = "at most " if censored else ""
    share = arm["share_of_none"]["mean"]
    return f"`{name}` {words} `none`: {bound}{say_interval(found)} steps saved ({share:+.1%}), {found['n']} seeds."


def against(comparison: Mapping[str, Any]) -> str:
    """Compares the time of the head in two arms, seed by seed."""
    sign = None if comparison["censored"] else verdict(comparison["difference"])
    words = {1: "beats", -1: "loses to", 0: "ties with", None: "cannot be distinguished from"}[sign]
    shown, seeds = say_interval(comparison["difference"]), comparison["difference"]["n"]
    return f"`{comparison['first']}` {words} `{comparison['second']}`: {shown} steps, paired, {seeds} seeds."


def _pairs(found: Summary, *pairs: tuple[str, str]) -> list[str]:
    known = {(comparison["first"], comparison["second"]): comparison for comparison in found["comparisons"]}
    return [against(known[pair]) for pair in pairs if pair in known]


def _speeds(found: Summary, *names: str) -> list[str]:
    arms = found["arms"]
    return [speed(name, arms[name]) for name in names if name in arms and arms[name]["acceleration"] is not None]


def _best_start(found: Summary) -> list[str]:
    lines = []
    for how, sweep in found["sweep"].items():
        if len(sweep) < 2:
            continue
        best = max(sweep, key=lambda comparison: comparison["acceleration"]["mean"])
        before = [window["t50"] - best["start"] for window in found["windows"].values() if window["t50"] is not None]
        where = f", {min(before)} to {max(before)} steps before the head of `none`" if before else ""
        lines.append(
            f"Of the {len(sweep)} starts tried ({how}), step {best['start']} saves most{where}: "
            f"{say_interval(best['acceleration'])} steps. The best of several is chosen by luck too."
        )
    return lines


def _live(found: Summary) -> list[str]:
    lines = []
    score, _ = thresholds(found)
    early = say_share(early_score(score))
    for name, live in found["live"].items():
        lines.append(
            f"The detector of `{name}` opens before the prefix score passes {early} in {live['opened_before_t25']} of "
            f"{live['opened_before_t25_n']} seeds; in {live['none_before_half_t50']} of "
            f"{live['none_before_half_t50_n']} it opens nothing in the first half of the way to {say_share(score)}."
        )
    return lines + _speeds(found, "live")


def _mechanisms(found: Summary) -> list[str]:
    names = [name for name in found["arms"] if f"{name}_loss" in found["arms"]]
    lines = _speeds(found, *(f"{name}_loss" for name in names)) + _pairs(
        found, *((name, f"{name}_loss") for name in names)
    )
    arms = found["arms"]
    if "inside_loss" in arms and verdict(arms["inside"]["acceleration"]) == 1:
        share = arms["inside_loss"]["acceleration"]["mean"] / arms["inside"]["acceleration"]["mean"]
        lines.append(f"Loss weights save {share:.2f} times as many steps as sampling weights do (`inside`, means).")
    return lines


def _costs(found: Summary) -> list[str]:
    lines = []
    for name in ("inside", "far_before", "live", "after", "placebo"):
        arm = found["arms"].get(name)
        if arm and arm["head_rise"] and arm["head_rise"]["low"] is not None:
            words = {1: "more", -1: "less", 0: "neither surely more nor surely less"}[verdict(arm["head_rise"]) or 0]
            lines.append(
                f"The head of `{name}` matters {words} than that of `none`: without it the loss rises by "
                f"{say_interval(arm['head_rise'], '+.3f')} nats more, of {found['none']['head_rise']['mean']:.2f}."
            )
        if arm and arm["background_loss"] and arm["background_loss"]["low"] is not None:
            words = {1: "costs", -1: "gains", 0: "neither surely costs nor surely gains"}[
                verdict(arm["background_loss"]) or 0
            ]
            shown = say_interval(arm["background_loss"], "+.4f")
            lines.append(f"`{name}` {words} background loss at the end: {shown} nats per token.")
    if "placebo" in found["arms"]:
        lines.append(
            "`placebo` shows what another order of the samples alone changes, from the first step on. Other arms share "
            "the order of `none` up to their windows: the control of a window is `random`."
        )
    return lines


def answers(found: Summary) -> list[Answer]:
    """Returns questions with their answers by the intervals; those without any cell are left out.

    Args:
        found: see :func:`~stagewise.studies.intervention.results.summarize`.
    """
    times = ("earliest", "far_before", "just_before", "just_after", "after", "whole")
    asked = [
        Answer("Does a window at the onset speed the head?", _speeds(found, "inside")),
        Answer("Does it matter when?", _pairs(found, *(("inside", time) for time in times)) + _speeds(found, *times)),
        Answer(
            "Is it the group, or any change of the data?",
            _pairs(found, ("inside", "random"), ("inside", "placebo")) + _speeds(found, "random", "placebo"),
        ),
        Answer(
            "Does it depend on how the onset is read?",
            _pairs(found, ("inside", "inside_within")) + _speeds(found, "inside_within"),
        ),
        Answer("Where is the best window?", _best_start(found)),
        Answer("Can a detector find it while the model trains?", _live(found)),
        Answer("Sampling weights or loss weights?", _mechanisms(found)),
        Answer("What does it cost, and does the model rely on the head as much?", _costs(found)),
    ]
    return [answer for answer in asked if answer.lines]
