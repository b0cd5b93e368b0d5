"""Figures as a table, for the terminal and the report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Summary = Mapping[str, Mapping[str, Any]]


class Aim(NamedTuple):
    """Value that would confirm the method.

    Attributes:
        value: the limit.
        least: True for a lower limit, False for an upper one.
    """

    value: float
    least: bool = True

    def met(self, figure: float) -> bool:
        """Returns True if a figure is on the right side of its limit."""
        return figure >= self.value if self.least else figure <= self.value

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {self.value:g}"


class Row(NamedTuple):
    """Figure in the table.

    Attributes:
        name: in ``validation.json``.
        label: description.
        aim: None if nothing is claimed.
    """

    name: str
    label: str
    aim: Aim | None = None


ROWS = (
    Row("closed_form_error_aligned", "mode strengths against closed form, aligned start, share of s", Aim(0.01, False)),
    Row("closed_form_error_gaussian", "the same, Gaussian start", Aim(0.12, False)),
    Row("closed_form_influence_r", "closed-form against unrolled influence, r"),
    Row("tangent_error", "unrolled influence against weight .99, relative error", Aim(0.02, False)),
    Row("tangent_full_drop_r", "unrolled influence against full leave-one-out, r"),
    Row("sgld_gaussian_r", "BIF from chains against the local Gaussian, r", Aim(0.98)),
    Row("sgld_gaussian_slope", "the same, slope"),
    Row("graddot_r", "BIF against minus the gradient dot product, r"),
    Row("horizon_loo_r", "BIF against a drop for the horizon, r", Aim(0.95)),
    Row("horizon_loo_sign", "the same, signs, pairs significant by both", Aim(0.99)),
    Row("horizon_loo_share_compared", "the same, share of pairs significant by both"),
    Row("horizon_loo_sign_all", "the same, signs, all pairs"),
    Row("horizon_loo_pair_r", "the same, r without the mean of each relation at each step"),
    Row("horizon_loo_slope", "the same, slope over its first-order prediction"),
    Row("graddot_horizon_loo_r", "gradient dot product against that drop, r"),
    Row("graddot_horizon_loo_sign_all", "the same, signs, all pairs"),
    Row("graddot_horizon_loo_pair_r", "the same, r without the mean of each relation at each step"),
    Row("unrolled_r", "BIF against unrolled influence, r"),
    Row("full_loo_r", "BIF against full leave-one-out, r", Aim(0.5)),
    Row("full_loo_sign", "the same, signs, pairs significant by both", Aim(0.75)),
    Row("full_loo_share_compared", "the same, share of pairs significant by both"),
    Row("full_loo_sign_all", "the same, signs, all pairs"),
    Row("graddot_full_loo_r", "gradient dot product against full leave-one-out, r"),
    Row("sibling_flips", "sibling pairs that flip from helpful to harmful, share", Aim(1.0)),
    Row("cousin_flips", "cousin pairs, share", Aim(1.0)),
    Row("far_flips", "far pairs, share"),
    Row("transition_precision", "windows of the between signal, precision", Aim(0.9)),
    Row("transition_recall", "the same, recall", Aim(0.9)),
    Row("transition_timing", "the same, |log peak - log truth|"),
    Row("transition_half_time_recall", "the same, recall of the closed form's half-times"),
    Row("baseline_precision", "windows of loss differences alone, precision"),
    Row("baseline_recall", "the same, recall"),
    Row("baseline_timing", "the same, |log peak - log truth|"),
    Row("baseline_half_time_recall", "the same, recall of the closed form's half-times"),
    Row("bif_norm_precision", "peaks of the norm of the BIF, precision"),
    Row("bif_norm_recall", "the same, recall"),
    Row("bif_norm_half_time_recall", "the same, recall of the closed form's half-times"),
    Row("window_end_r", "window ablation, read at the window's end, r with BIF", Aim(0.9)),
    Row("graddot_window_end_r", "the same, r with minus the gradient dot product"),
    Row("window_end_r_longest", "the same, longest windows, r with BIF"),
    Row("window_end_r_other_weight", "the same, shortest windows, the other weight"),
    Row("run_end_r", "window ablation, read at the end of the run, r with BIF"),
    Row("run_end_size", "the same, size over that at the window's end"),
    Row("maximum_r", "window ablation, maximum over the run, r with BIF"),
    Row("sibling_net_over_gross", "TracIn over the run, |net| / gross, siblings"),
    Row("cousin_net_over_gross", "the same, cousins"),
    Row("far_net_over_gross", "the same, far pairs"),
    Row("branch_peak_ratio", "step of most harm across a branch over its branching step, median node"),
    Row("flagged_share", "share of probes that the callback flags"),
)

AIMS: Mapping[str, Aim] = {row.name: row.aim for row in ROWS if row.aim is not None}


def number(value: float) -> str:
    """Formats a figure with three digits after the point, small ones with an exponent."""
    return f"{value:.3f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"


def _cells(row: Row, figure: Mapping[str, Any], num_seeds: int) -> tuple[str, ...]:
    values = figure["values"]
    met = "" if row.aim is None else f"{sum(row.aim.met(value) for value in values)} of {num_seeds}"
    spread = f"{number(figure['min'])} to {number(figure['max'])}"
    if len(values) < num_seeds:
        spread += f" ({len(values)} of {num_seeds} seeds)"
    return row.label, str(row.aim or ""), number(figure["median"]), spread, met


def table_rows(summary: Summary) -> list[tuple[str, ...]]:
    """Returns a header, then label, aim, median, range and seeds that meet the aim for each known figure."""
    num_seeds = max((len(figure["seeds"]) for figure in summary.values()), default=0)
    header = ("figure", "aim", "median", f"range over {num_seeds} seed{'s' if num_seeds != 1 else ''}", "aim met")
    return [header, *(_cells(row, summary[row.name], num_seeds) for row in ROWS if row.name in summary)]


def validation_table(summary: Summary) -> str:
    """Returns the table in plain text.

    Args:
        summary: see :func:`~stagewise.studies.toy.validation.summarize`.
    """
    rows: Sequence[tuple[str, ...]] = table_rows(summary)
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:<{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    )


def validation_markdown(summary: Summary) -> str:
    """Returns the table in Markdown."""
    header, *rest = table_rows(summary)
    rows = [header, ("---", "---", "---:", "---", "---"), *rest]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
