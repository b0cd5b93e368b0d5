"""Description of a run in words: settings, verdict, windows."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from stagewise.checks.counted import counted
from stagewise.checks.group_names import plain_names
from stagewise.influence.sign import SIGN
from stagewise.runs.equilibrium import flag_line
from stagewise.runs.run_windows import no_window_words
from stagewise.runs.stability import Stability, lr_words
from stagewise.runs.summary_file import summary_of
from stagewise.runs.verdict import verdict_record


def about(run: xr.Dataset, summary: Mapping[str, Any]) -> str:
    """Returns probes, settings, sign and unit of a run, as Markdown.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        summary: content of its ``summary.json``, or empty.
    """
    sgld = run.attrs["sgld"]
    steps = run["step"].values
    stability = Stability.of(summary)
    due = f"{len(steps)} of " if stability.lost else ""
    count = f"{due}{counted(len(steps) + len(stability.lost), 'probe')}, steps {steps[0]:,} to {steps[-1]:,}"
    draws = f" x {counted(sgld['num_draws'], 'draw')}" if "num_draws" in sgld else ""
    settings = [f"{name} {_number(sgld[name])}" for name in ("nbeta", "localization", "lr", "seed") if name in sgld]
    facts = [count, f"{counted(sgld['num_chains'], 'chain')}{draws}", ", ".join(settings)]
    facts += [f"stagewise {run.attrs['version']}"] if "version" in run.attrs else []
    lines = [
        "; ".join(filter(None, facts)) + ".",
        f"**BIF(A, B)** = minus the covariance of the losses of A and B over the draws, nats², mean over pairs of "
        f"losses in different samples; {SIGN}. Errors are jackknife errors over chains, read by Student's t.",
    ]
    lowered = lr_words(run)
    if lowered is not None:
        lines.append(f"{lowered}.")
    if stability.words is not None:
        lines.append(f"**Lost**: {stability.words}.")
    component = run.attrs.get("component", summary.get("component"))
    if component is not None:
        number = f" ({run.attrs['moved_weights']:,} of them)" if "moved_weights" in run.attrs else ""
        lines.append(f"**Chains move the weights of {component} alone**{number}: influence is that through them.")
    if "flags" in summary:
        lines.append(f"Flagged: {flag_line(summary['flags'], summary['probes_flagged'], summary['probes'])}")
    else:
        lines.append("The run has no summary.json: it has not ended, or was cut off.")
    return "\n\n".join(lines)


def _number(value: float | str) -> str:
    """Formats a setting; results of an earlier version may have text."""
    return value if isinstance(value, str) else f"{value:g}"


def verdict_text(run: xr.Dataset) -> str:
    """Returns the verdict of a run as Markdown, see :func:`~stagewise.runs.verdict.verdict_record`.

    A text that an earlier version wrote without the readings is kept.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.

    Raises:
        InputError: the data set lacks its settings.
    """
    found = summary_of(run).get("verdict") or verdict_record(run)
    return str(found["text"]).replace("<", "&lt;")


def windows_text(summary: Mapping[str, Any], run: xr.Dataset | None = None) -> str:
    """Returns the transition windows of a summary as a Markdown table; if there are none, a sentence with the reason.

    Args:
        summary: content of ``summary.json``, or empty.
        run: of the summary, for the reason.
    """
    rows = summary.get("transitions", [])
    if not rows:
        why = summary.get("no_window") or (None if run is None else no_window_words(run))
        reason = "" if why is None else f": {str(why).replace('<', '&lt;')}"
        return f"No transition window was found in the between part{reason}."
    lines = ["| start | peak | end | signal at peak (nats) |", "|---|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {row['start']} | {row['peak']} | {row['end']} | {row['value']:.3g} |" for row in rows)]
    )


def with_plain_names(run: xr.Dataset) -> xr.Dataset:
    """Returns a run with group names that are safe in text and figures.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it, also of an earlier version.
    """
    axes = [axis for axis in ("group", "group_j") if axis in run.coords]
    return run.assign_coords({axis: list(plain_names(run[axis].values.tolist())) for axis in axes})
