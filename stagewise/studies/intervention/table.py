"""Results as Markdown tables, which a terminal shows as well."""

from collections.abc import Mapping, Sequence
from typing import Any

from stagewise.studies.intervention.results import Summary


def say_interval(found: Mapping[str, Any] | None, form: str = "+.0f") -> str:
    """Formats the mean over seeds and its 95 % t interval, as ``+70 [+60, +80]``; ``-`` without a mean."""
    if found is None:
        return "-"
    mean = f"{found['mean']:{form}}"
    return mean if found["low"] is None else f"{mean} [{found['low']:{form}}, {found['high']:{form}}]"


def say_share(value: float) -> str:
    """Formats a number between 0 and 1, as ``.25``."""
    return f"{value:g}".removeprefix("0")


def _start(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    middle = f"{found['median']:.0f}"
    return middle if found["min"] == found["max"] else f"{middle} [{found['min']:.0f}, {found['max']:.0f}]"


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns Markdown with columns as wide as their longest cell."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) + " |" for row in lines
    )


def arms_table(found: Summary) -> str:
    """Tabulates how much earlier each arm forms the head: window start, steps saved, seeds, share of ``none``'s steps.

    Args:
        found: see :func:`~stagewise.studies.intervention.results.summarize`.
    """
    rows = []
    for name, arm in found["arms"].items():
        saved = arm["acceleration"]
        rows.append(
            [
                name,
                _start(arm["window_start"]),
                ("at most " if arm["censored"] else "") + say_interval(saved),
                "0" if saved is None else str(saved["n"]),
                "-" if arm["share_of_none"] is None else f"{arm['share_of_none']['mean']:+.1%}",
                ("at most " if arm["gap_censored"] else "") + say_interval(arm["gap_acceleration"]),
                ", ".join(map(str, arm["censored"])) or "-",
            ]
        )
    header = ["arm", "window start", "steps saved", "n", "share", "gap: steps saved", "censored"]
    return _lines(header, rows)


def costs_table(found: Summary) -> str:
    """Tabulates the cost of each arm, and the reliance on its head: all at the end, arm minus none.

    Args:
        found: see :func:`~stagewise.studies.intervention.results.summarize`.
    """
    rows = [
        [
            name,
            say_interval(arm["mean_score"], "+.3f"),
            say_interval(arm["background_loss"], "+.4f"),
            say_interval(arm["head_rise"], "+.3f"),
            "-" if arm["budget"] is None else f"{arm['budget']['mean']:.1f}",
            "-" if arm["steps_used"] is None else f"{arm['steps_used']['mean']:.0f}",
        ]
        for name, arm in found["arms"].items()
    ]
    return _lines(["arm", "mean score", "background loss", "head rise", "budget", "steps used"], rows)


def cells_table(found: Summary) -> str:
    """Returns steps saved of every cell; ``at most`` if the arm never forms the head, ``-`` without a cell.

    Args:
        found: see :func:`~stagewise.studies.intervention.results.summarize`.
    """
    rows = []
    for name, arm in found["arms"].items():
        saved = {} if arm["acceleration"] is None else arm["acceleration"]["per_seed"]
        row = [name]
        for seed in found["seeds"]:
            words = f"{saved[str(seed)]:+.0f}" if str(seed) in saved else "-"
            row.append(f"at most {words}" if seed in arm["censored"] else words)
        rows.append(row)
    return _lines(["arm", *(f"seed {seed}" for seed in found["seeds"])], rows)


def comparisons_table(found: Summary) -> str:
    """Tabulates paired differences of steps saved; positive = the first arm is earlier.

    Args:
        found: see :func:`~stagewise.studies.intervention.results.summarize`.
    """
    rows = []
    for comparison in found["comparisons"]:
        both = comparison["difference"]
        censored = ", ".join(map(str, comparison["censored"])) or "-"
        rows.append([comparison["first"], comparison["second"], say_interval(both), str(both["n"]), censored])
    return _lines(["first", "second", "difference", "n", "censored"], rows)


def detector_markdown(found: Summary) -> str:
    """Tabulates where the online detector opens its first window on each signal, seed by seed.

    Args:
        found: from :func:`~stagewise.studies.intervention.results.write_results`.
    """
    rows = []
    for signal, row in found["detector"].items():
        starts = [row["first_window"].get(str(seed), "") for seed in found["seeds"]]
        counts = [f"{row['opened_before_t25']} of {row['n']}", f"{row['none_before_half_t50']} of {row['n']}"]
        rows.append([f"`{signal}`", *("-" if start is None else str(start) for start in starts), *counts])
    seeds = [f"seed {seed}" for seed in found["seeds"]]
    return _lines(["signal", *seeds, "before t25", "none before t50 / 2"], rows)


def results_markdown(found: Summary) -> str:
    """Returns the tables that the terminal shows at the end.

    Args:
        found: see :func:`~stagewise.studies.intervention.results.summarize`.
    """
    return "\n\n".join([arms_table(found), costs_table(found), cells_table(found)])
