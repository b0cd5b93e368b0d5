"""What a run came to, as plain data and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stagewise._version import __version__
from stagewise.influence.bif import SIGN, UNITS
from stagewise.phases.window import Window
from stagewise.sampling.config import SGLDConfig

SIGNAL_NAME = "sqrt_between_norm"


def build_summary(
    *,
    config: SGLDConfig,
    centering: str,
    probe_steps: Sequence[int],
    failed_steps: Sequence[int],
    windows: Sequence[Window],
    probe_seconds: float,
    training_seconds: float,
    chains_dropped: int,
) -> dict[str, Any]:
    """The content of ``summary.json``.

    Args:
        config: sampler settings of the run.
        centering: of the within part.
        probe_steps: training steps of the probes that were kept.
        failed_steps: training steps of probes that lost all their chains.
        windows: transitions found in the signal.
        probe_seconds: time spent in probes.
        training_seconds: time spent training, probes not counted.
        chains_dropped: chains that failed, over all probes.
    """
    return {
        "version": __version__,
        "probes": len(probe_steps),
        "probe_steps": list(probe_steps),
        "failed_steps": list(failed_steps),
        "chains_dropped": chains_dropped,
        "transitions": [{**asdict(window), "signal": SIGNAL_NAME, "value": window.signal} for window in windows],
        "overhead": probe_seconds / training_seconds if training_seconds > 0 else None,
        "probe_seconds": probe_seconds,
        "training_seconds": training_seconds,
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
        f"{len(summary['failed_steps'])}; overhead: "
        + (f"{overhead:.2f} of training time." if overhead is not None else "not known."),
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
