"""Report of an intervention, as plain data and as text."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stagewise.checks.group_names import markdown_text
from stagewise.interventions.loader import ReweightedLoader
from stagewise.interventions.strata import Strata
from stagewise.interventions.weight_plan import Plan

FILE_NAME = "intervention.json"


def build_report(
    plan: Plan,
    *,
    mechanism: str,
    policy: str,
    end: int,
    strata: Strata | None = None,
    loader: ReweightedLoader | None = None,
) -> dict[str, Any]:
    """Builds the report: planned changes and, for sampling, the data drawn; plain data.

    Args:
        plan: of the run.
        mechanism: ``sampling`` or ``loss``.
        policy: its description.
        end: last training step reached.
        strata: of the training data; None if only the names of groups are known, which leaves out the budget.
        loader: of the training data, for sampling.

    Returns:
        ``changes`` of weights up to ``end``, ``budget`` over steps, and for sampling ``drawn``: the same over batches
        as drawn, including the lag of live changes.
    """
    drawn = None
    if loader is not None:
        history = [
            {"batch": number, "weights": weights} for number, weights in loader.history if number < loader.served
        ]
        drawn = {"batches": loader.served, "changes": history, "budget": asdict(loader.budget())}
    return {
        "mechanism": mechanism,
        "policy": policy,
        "windows": "fixed" if plan.fixed else "live",
        "groups": list(plan.names),
        "steps": end,
        "prefetch_lag": 0 if loader is None else loader.prefetch_lag,
        "changes": [
            {**asdict(change), "weights": dict(change.weights)} for change in plan.changes if change.step <= end
        ],
        "budget": None if strata is None else asdict(plan.budget(strata, end=end)),
        "drawn": drawn,
    }


def report_markdown(report: Mapping[str, Any]) -> str:
    """Returns a report as text for TensorBoard: a table of changes, and the budget."""
    lines = [f"**{report['mechanism']}**, {report['windows']} windows, policy {markdown_text(report['policy'])}.", ""]
    if report["windows"] == "live" and report["prefetch_lag"]:
        lines += [f"Changes show in the data {report['prefetch_lag']} batches late, from prefetching workers.", ""]
    if report["changes"]:
        names = report["groups"]
        lines += ["| step | window | " + " | ".join(names) + " | reason |", "|---" * (len(names) + 3) + "|"]
        for change in report["changes"]:
            weights = " | ".join(f"{change['weights'][name]:g}" for name in names)
            state, reason = "open" if change["inside"] else "-", markdown_text(change["reason"])
            lines.append(f"| {change['step']} | {state} | {weights} | {reason} |")
    else:
        lines.append("No window was opened.")
    found = report["budget"]
    if found is not None:
        shares = ", ".join(f"{name} {value:+.4g}" for name, value in found["groups"].items())
        lines += [
            "",
            f"**Budget** up to step {report['steps']}: sum of rho - 1 in steps: {shares}; mass moved "
            f"{found['moved']:.4g} steps; {found['steps']} steps reweighted.",
        ]
    return "\n".join(lines)
