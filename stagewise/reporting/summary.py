"""What a run came to, as plain data and as Markdown."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stagewise._version import __version__
from stagewise.influence.bif import SIGN, UNITS
from stagewise.probes.record import Record
from stagewise.sampling.config import SGLDConfig

SIGNAL_NAME = "sqrt_between_norm"


def build_summary(record: Record, *, config: SGLDConfig, centering: str) -> dict[str, Any]:
    """The content of ``summary.json``.

    Args:
        record: what the probes came to.
        config: sampler settings of the run.
        centering: of the within part.
    """
    return {
        "version": __version__,
        "probes": len(record.steps),
        "probe_steps": record.steps,
        "failed_steps": record.failed_steps,
        "chains_dropped": record.chains_dropped,
        "transitions": [
            {**asdict(window), "signal": SIGNAL_NAME, "value": window.signal} for window in record.windows()
        ],
        "overhead": record.overhead,
        "probe_seconds": record.probe_seconds,
        "training_seconds": record.training_seconds,
        "nbeta": config.nbeta,
        "localization": config.localization,
        "lr": config.lr,
        "sgld": asdict(config),
        "centering": centering,
        "sign": SIGN,
        "units": UNITS,
    }


def summary_markdown(summary: Mapping[str, Any]) -> str:
    """The summary as text for TensorBoard: settings, probes, a table of windows."""
    overhead = summary["overhead"]
    lines = [
        f"**BIF**: minus the covariance of losses over the draws, {summary['units']}; {summary['sign']}.",
        "",
        f"**Sampler**: nbeta {summary['nbeta']:g}, localization {summary['localization']:g}, lr {summary['lr']:g}, "
        f"{summary['sgld']['num_chains']} chains x {summary['sgld']['num_draws']} draws, centred by "
        f"{summary['centering']}, seed {summary['sgld']['seed']}.",
        "",
        f"**Probes**: {summary['probes']}; chains dropped: {summary['chains_dropped']}; probes lost: "
        f"{len(summary['failed_steps'])}; probe time over training time: "
        + (f"{overhead:.2f}." if overhead is not None else "not known."),
        "",
    ]
    if summary["transitions"]:
        lines += ["| window | start | peak | end | signal at peak (nats) |", "|---|---|---|---|---|"]
        lines += [
            f"| {row} | {window['start']} | {window['peak']} | {window['end']} | {window['value']:.3g} |"
            for row, window in enumerate(summary["transitions"], start=1)
        ]
    else:
        lines.append("No transition window was found.")
    return "\n".join(lines)
