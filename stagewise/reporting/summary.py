"""Summary of a run, as plain data and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stagewise._version import __version__
from stagewise.checks.counted import counted
from stagewise.influence.sign import SIGN, UNITS
from stagewise.probes.config import ProbeConfig, changed_settings
from stagewise.probes.history import Record
from stagewise.reporting.windows import transition
from stagewise.runs.equilibrium import flag_line
from stagewise.runs.stability import Stability
from stagewise.runs.verdict import Verdict
from stagewise.sampling.config import SGLDConfig

SIGNAL_NAME = "sqrt_between_norm"

_STEPS_SHOWN = 20
"""Number of steps that the text lists; ``summary.json`` has all."""


def build_summary(
    record: Record,
    *,
    config: SGLDConfig,
    probe: ProbeConfig,
    max_overhead: float | None = None,
    component: str | None = None,
    verdict: Verdict | None = None,
    complete: bool = True,
    findings: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns the content of ``summary.json``.

    Args:
        record: of the probes.
        config: sampler settings of the run.
        probe: the measurement, for its centring, the limits of flags and the least prominence of a transition.
        max_overhead: budget of the schedule, probe seconds over training seconds; None without one.
        component: part of a language model to whose weights the chains are restricted; None for all weights.
        verdict: what can be read off the curves; None if not judged.
        complete: True if the run has ended and was not stopped by an error.
        findings: on the settings, see :meth:`stagewise.calibration.findings.Finding.record`.
    """
    return {
        "version": __version__,
        "complete": complete,
        "probes": len(record.steps),
        "probes_due": record.num_due,
        "probe_steps": record.steps,
        "failed_steps": record.failed_steps,
        "not_finite_steps": record.not_finite_steps,
        "settings_findings": [dict(finding) for finding in findings],
        "chains_dropped": record.chains_dropped,
        "probes_failed": failures(record),
        "faulty_steps": record.faulty_steps,
        "changes": record.changes,
        "lost_samples": record.lost_samples,
        "probes_flagged": len(record.flagged_steps),
        "flagged_steps": record.flagged_steps,
        "flags": record.flags,
        "probes_skipped": len(record.skipped_steps),
        "skipped_steps": record.skipped_steps,
        "max_overhead": max_overhead,
        "transitions": [
            transition(window, SIGNAL_NAME) for window in record.windows(min_prominence=probe.min_prominence)
        ],
        "no_window": record.why_no_window(min_prominence=probe.min_prominence),
        "overhead": record.overhead,
        "probe_seconds": record.probe_seconds,
        "training_seconds": record.training_seconds,
        "nbeta": config.nbeta,
        "localization": config.localization,
        "lr": config.lr,
        "sgld": asdict(config),
        "component": component,
        "centering": str(probe.centering),
        "min_prominence": probe.min_prominence,
        "thresholds": asdict(probe.thresholds),
        "probe": changed_settings(probe),
        "sign": SIGN,
        "units": UNITS,
        "verdict": None if verdict is None else verdict.record(),
    }


def failures(record: Record) -> dict[str, int]:
    """Counts failures by kind: ``chains`` for probes that lost all their chains, then the faults."""
    lost = {"chains": len(record.failed_steps)} if record.failed_steps else {}
    return lost | record.faults


def _number(value: float | str) -> str:
    """Returns a setting; a run that ended before its first probe still has ``auto``."""
    return value if isinstance(value, str) else f"{value:g}"


def _probes(summary: Mapping[str, Any]) -> str:
    """Counts kept probes among those due, and names the lost ones."""
    lost = Stability.of(summary).words
    kept = summary["probes"]
    return f"{kept}" if lost is None else f"{kept} of {kept + len(summary['failed_steps'])}; {lost}"


def _skipped(summary: Mapping[str, Any]) -> str:
    steps = summary["skipped_steps"]
    if not steps:
        return "no probe"
    shown = ", ".join(map(str, steps[:_STEPS_SHOWN])) + (" and later" if len(steps) > _STEPS_SHOWN else "")
    return f"{counted(len(steps), 'probe')}, at steps {shown}"


def summary_markdown(summary: Mapping[str, Any]) -> str:
    """Returns the summary as text for TensorBoard: the verdict, settings, probes, a table of windows."""
    overhead = summary["overhead"]
    verdict = summary.get("verdict")
    lines = [] if verdict is None else [verdict["text"], ""]
    lines += [
        f"**BIF**: minus the covariance of losses over the draws, {summary['units']}; {summary['sign']}.",
        "",
        f"**Sampler**: nbeta {summary['nbeta']:g}, localization {_number(summary['localization'])}, "
        f"lr {_number(summary['lr'])}, "
        f"{counted(summary['sgld']['num_chains'], 'chain')} x {counted(summary['sgld']['num_draws'], 'draw')}, "
        f"centred by {summary['centering']}, seed {summary['sgld']['seed']}.",
        "",
        f"**Probes**: {_probes(summary)}; chains dropped: {summary['chains_dropped']}; probe time over training time: "
        + (f"{overhead:.2f}." if overhead is not None else "not known."),
        "",
        f"**Flagged**: {flag_line(summary['flags'], summary['probes_flagged'], summary['probes'])}",
        "",
    ]
    if summary["probes_failed"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in summary["probes_failed"].items())
        lines += [f"**Failed**: {kinds}; training went on.", ""]
    lost = summary["lost_samples"]
    if lost:
        shown = ", ".join(f"{sample['sample']} (step {sample['step']})" for sample in lost[:_STEPS_SHOWN])
        more = f" and {len(lost) - _STEPS_SHOWN} more" if len(lost) > _STEPS_SHOWN else ""
        lines += [f"**Left out**, of a loss that is not finite: observed samples {shown}{more}.", ""]
    if summary["component"] is not None:
        lines += [f"**Component**: chains move the weights of {summary['component']} alone.", ""]
    if summary["max_overhead"] is not None:
        lines += [f"**Skipped** to stay within max_overhead {summary['max_overhead']:g}: {_skipped(summary)}.", ""]
    if summary["transitions"]:
        lines += ["| window | start | peak | end | signal at peak (nats) |", "|---|---|---|---|---|"]
        lines += [
            f"| {row} | {window['start']} | {window['peak']} | {window['end']} | {window['value']:.3g} |"
            for row, window in enumerate(summary["transitions"], start=1)
        ]
    else:
        why = summary["no_window"]
        lines.append(f"No transition window was found{'' if why is None else f': {why}'}.")
    return "\n".join(lines)
