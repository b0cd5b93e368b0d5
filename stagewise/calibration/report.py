"""Results of a calibration as plain data, text and a figure."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise._version import __version__
from stagewise.calibration.findings import STEP_TOLERATED, Finding
from stagewise.calibration.landscape import Measurement
from stagewise.calibration.loss_traces import TraceVerdict
from stagewise.calibration.rules import Proposal
from stagewise.sampling.config import ResolvedSGLD, SGLDConfig
from stagewise.sampling.trace import Trace

_CHAINS = "#0072b2"
_STEEP, _SADDLE = "#d55e00", "#009e73"


@dataclass(frozen=True)
class Calibration:
    """Curvature over a run, settings derived from it, and traces of chains at these settings.

    Attributes:
        given: the settings of the configuration.
        proposed: the same with calibrated lr and localization; chains and draws are those of the traces.
        proposal: derivation of these two figures.
        raised: reason why localization is higher than curvature alone requires; None if it is not.
        measurements: curvature at each step.
        findings: faults of the given settings; empty if they are sound or still ``auto``.
        traces: of chains at the proposed settings, at the same steps.
        verdicts: verdict on each trace; None if all its chains diverged.
        component: of a language model, the only weights moved and measured; None for all weights.
    """

    given: SGLDConfig
    proposed: ResolvedSGLD
    proposal: Proposal
    raised: str | None
    measurements: list[Measurement]
    findings: list[Finding]
    traces: list[Trace]
    verdicts: list[TraceVerdict | None]
    component: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of ``calibration.json``."""
        return {
            "version": __version__,
            "given": asdict(self.given),
            "component": self.component,
            "proposed": asdict(self.proposed),
            "proposal": asdict(self.proposal),
            "raised": self.raised,
            "curvatures": [asdict(measurement) for measurement in self.measurements],
            "findings": [asdict(finding) for finding in self.findings],
            "traces": [
                {
                    "step": trace.step,
                    "anchor_loss": trace.mean_anchor_loss(),
                    "mean_loss": trace.mean_loss().tolist(),
                    "chains": list(trace.chains),
                    "dropped": trace.dropped,
                    "verdict": None if verdict is None else _without_nan(asdict(verdict)),
                }
                for trace, verdict in zip(self.traces, self.verdicts, strict=True)
            ],
            "units": "nats",
        }

    def yaml_fragment(self) -> str:
        """Returns the proposed settings as YAML to paste into a configuration."""
        lr, localization = self.proposed.lr, self.proposed.localization
        # With a decimal point: YAML reads 1e-05 as text.
        part = "" if self.component is None else f"  component: {self.component}\n"
        return (
            f"influence:\n{part}  sgld:\n    lr: {lr:.1e}\n    nbeta: {self.proposed.nbeta:g}\n"
            f"    localization: {localization:g}\n"
        )

    def explain(self) -> str:
        """Describes the whole result in words."""
        where = "" if self.component is None else f" over the weights of {self.component}"
        lines = [f"Curvature of the mean loss{where} (nats per squared weight):"]
        lines += [
            f"  step {measurement.plain.step}: {measurement.plain.lam_min:.3g} to {measurement.plain.lam_max:.3g} "
            f"(within {measurement.plain.residual:.1g}, {measurement.plain.num_products} Hessian-vector products)"
            for measurement in self.measurements
        ]
        given = f"lr {_figure(self.given.lr)}, nbeta {self.given.nbeta:g}, localization "
        given += _figure(self.given.localization)
        if "auto" in (self.given.lr, self.given.localization):
            lines.append(f"Given: {given}: left to calibration.")
        elif not self.findings:
            lines.append(f"Given: {given}: sound at all these steps.")
        else:
            lines.append(f"Given: {given}:")
            lines += [f"  {finding.severity}: {finding.text}" for finding in self.findings]
        lines.append(f"Proposed: {self.proposal.explain()}")
        if self.raised is not None:
            lines.append(f"  {self.raised}.")
        lines.append(f"Loss traces of {self.proposed.num_chains} chains at the proposed settings:")
        for trace, verdict in zip(self.traces, self.verdicts, strict=True):
            lost = f"step {trace.step}: all chains diverged: {next(iter(trace.dropped.values()), '')}"
            lines.append(f"  {lost if verdict is None else verdict.explain()}")
        return "\n".join(lines)


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Replaces NaN by None, since JSON has no NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def _draw_trace(axes: Axes, trace: Trace, verdict: TraceVerdict | None) -> None:
    curves = trace.mean_loss() - trace.mean_anchor_loss()
    for curve in curves:
        axes.plot(curve, color=_CHAINS, linewidth=0.9, alpha=0.7)
    axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
    good = verdict is not None and not verdict.faults
    axes.set_title(f"step {trace.step}: {'good' if good else 'see the text'}", fontsize=9)
    if not len(curves):
        axes.text(0.5, 0.5, "all chains diverged", ha="center", va="center", transform=axes.transAxes)


def _draw_curvature(axes: Axes, measurements: Sequence[Measurement], proposed: ResolvedSGLD) -> None:
    lr, localization = proposed.lr, proposed.localization
    steps = [measurement.plain.step for measurement in measurements]
    axes.plot(steps, [measurement.plain.lam_max for measurement in measurements], "o-", color=_STEEP, label="largest")
    axes.plot(steps, [measurement.plain.lam_min for measurement in measurements], "o-", color=_SADDLE, label="smallest")
    axes.axhline(0, color="black", linewidth=0.6)
    if proposed.nbeta > 0:
        floor = -localization / proposed.nbeta
        axes.axhline(floor, color=_SADDLE, linestyle=":", label="no posterior below")
        if proposed.preconditioner is None:
            ceiling = (STEP_TOLERATED[proposed.integrator] / lr - localization) / proposed.nbeta
            axes.axhline(ceiling, color=_STEEP, linestyle=":", label="lr too large above")
    if min(steps) > 0:
        axes.set_xscale("log")
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.minorticks_off()
    axes.set_title("curvature of the mean loss", fontsize=9)
    axes.set_xlabel("training step", fontsize=8)
    axes.set_ylabel("nats per squared weight", fontsize=8)
    # Leave room for the legend above the curves.
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.45 * (high - low))
    axes.legend(fontsize=7, loc="upper left", ncols=2, frameon=False)


def calibration_figure(calibration: Calibration) -> Figure:
    """Draws loss traces relative to the loss at w*, one panel per step and one line per chain, and the curvature."""
    panels = len(calibration.traces) + 1
    columns = min(3, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.4), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (trace, verdict) in enumerate(zip(calibration.traces, calibration.verdicts, strict=True)):
        _draw_trace(grid[place], trace, verdict)
        grid[place].set_xlabel("draw", fontsize=8)
        if place % columns == 0:
            grid[place].set_ylabel("mean loss - loss at w* (nats)", fontsize=8)
    _draw_curvature(grid[panels - 1], calibration.measurements, calibration.proposed)
    for unused in grid[panels:]:
        unused.set_axis_off()
    for axes in grid:
        axes.tick_params(labelsize=7.5)
    proposed = calibration.proposed
    lr, localization = proposed.lr, proposed.localization
    figure.suptitle(
        f"Chains at the proposed lr {lr:g}, nbeta {proposed.nbeta:g}, localization {localization:g}", fontsize=10
    )
    return figure
