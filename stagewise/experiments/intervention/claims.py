"""What the intervals bear out, in words whose direction is that of the figures."""

from collections.abc import Mapping
from typing import Any

from stagewise.experiments.intervention.results import Summary
from stagewise.experiments.intervention.table import say_interval

HOLDS, OPEN, NOT = "is borne out", "is a tie, or open", "is not borne out here"


def verdict(found: Mapping[str, Any]) -> int | None:
    """1 or -1 where both intervals lie on one side of 0, 0 where one of them does not, None for a single seed."""
    if found["low"] is None:
        return None
    low, high = min(found["low"], found["t_low"]), max(found["high"], found["t_high"])
    return 1 if low > 0 else -1 if high < 0 else 0


def _kind(sign: int | None) -> str:
    return OPEN if not sign else HOLDS if sign > 0 else NOT


def _speed(name: str, found: Mapping[str, Any], censored: list[int]) -> tuple[str, str]:
    sign = verdict(found)
    if sign is not None and sign >= 0 and censored:
        sign = None  # upper bounds can only show a delay
    words = {
        1: "has the head earlier than",
        -1: "has the head later than",
        0: "makes no difference that can be told from none to",
        None: "cannot be told (one seed, or seeds without a head) from",
    }[sign]
    bound = "at most " if censored else ""
    text = f"**`{name}` {words} `none`**: {bound}{say_interval(found)} steps saved, {found['n']} seeds."
    return _kind(sign), text


def _against(it: Mapping[str, Any]) -> tuple[str, str]:
    sign = None if it["censored"] else verdict(it["difference"])
    words = {1: "beats", -1: "loses to", 0: "ties with", None: "cannot be told from"}[sign]
    text = f"**`{it['first']}` {words} `{it['second']}`**: {say_interval(it['difference'])} steps, paired"
    return _kind(sign), f"{text}, {it['difference']['n']} seeds."


def _best_start(found: Summary) -> list[tuple[str, str]]:
    said = []
    for how, sweep in found["sweep"].items():
        if len(sweep) < 2:
            continue
        best = max(sweep, key=lambda it: it["acceleration"]["mean"])
        onset = [it["onset"] for it in found["windows"].values() if it["onset"] is not None]
        middle = None if not onset else sorted(onset)[len(onset) // 2]
        if middle is None:
            where = ""
        else:
            side = "before" if best["start"] < middle else "after"
            where = f", {abs(middle - best['start'])} steps {side} the onset (step {middle}, middle seed)"
        text = f"**Of the sweep ({how}) the window from step {best['start']} saves most**{where}: "
        said.append(
            (OPEN, f"{text}{say_interval(best['acceleration'])} steps. The best of several is chosen by luck too.")
        )
    return said


def _live(name: str, live: Mapping[str, Any]) -> tuple[str, str]:
    opened, asked = live["opened_before_t25"], live["opened_before_t25_n"]
    kind = HOLDS if asked and opened > asked / 2 else NOT
    return kind, (
        f"**The online detector (`{name}`) opens before the prefix score passes .25 in {opened} of {asked} seeds**; no "
        f"window opens in the first half of the way to .5 in {live['none_before_half_t50']} of "
        f"{live['none_before_half_t50_n']}."
    )


def sorted_claims(found: Summary) -> dict[str, list[str]]:
    """Statements in words, by what the intervals say of them; kinds without any are left out.

    Args:
        found: see :func:`~stagewise.experiments.intervention.results.summarize`.
    """
    said: list[tuple[str, str]] = []
    for name, arm in found["arms"].items():
        if arm["acceleration"] is not None:
            said.append(_speed(name, arm["acceleration"], arm["censored"]))
    said += [_against(it) for it in found["comparisons"]]
    said += _best_start(found)
    said += [_live(name, live) for name, live in found["live"].items()]
    for name in ("inside", "live"):
        arm = found["arms"].get(name)
        if arm and arm["head_rise"]:
            words = {1: "more", -1: "less", 0: "neither surely more nor less", None: "an unknown share"}
            sign = verdict(arm["head_rise"])
            text = f"**The head of `{name}` bears {words[sign]} than that of `none`**: "
            said.append(
                (OPEN if sign is None else _kind(sign), f"{text}{say_interval(arm['head_rise'], '+.3f')} nats.")
            )
        if arm and arm["background_loss"]:
            words = {1: "costs", -1: "gains", 0: "neither surely costs nor gains", None: "changes (one seed)"}
            sign = verdict(arm["background_loss"])
            text = f"**`{name}` {words[sign]} background loss at the end**: "
            said.append((OPEN if not sign else HOLDS, f"{text}{say_interval(arm['background_loss'], '+.4f')} nats."))
    kinds = {kind: [text for which, text in said if which == kind] for kind in (HOLDS, OPEN, NOT)}
    return {kind: texts for kind, texts in kinds.items() if texts}
