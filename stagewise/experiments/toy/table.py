"""The figures as a table, for the terminal and the report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A figure that is shown.

    Attributes:
        name: in ``validation.json``.
        label: what it is, in words.
        aim: what would confirm the method; empty where nothing is claimed.
    """

    name: str
    label: str
    aim: str = ""


ROWS = (
    Row("closed_form_error_aligned", "mode strengths against closed form, aligned start (share of s)", "<= .01"),
    Row("closed_form_error_gaussian", "the same, Gaussian start", "<= .12"),
    Row("closed_form_influence_r", "closed-form against unrolled influence, r"),
    Row("sgld_gaussian_r", "BIF from chains against the local Gaussian, r", ">= .98"),
    Row("sgld_gaussian_slope", "the same, slope"),
    Row("graddot_r", "BIF against minus the gradient dot product, r"),
    Row("tangent_error", "unrolled influence against weight .99, relative error", "<= .02"),
    Row("horizon_loo_r", "BIF against a drop for the horizon, r", ">= .95"),
    Row("horizon_loo_sign", "the same, signs, pairs that both tell from zero", ">= .99"),
    Row("horizon_loo_sign_all", "the same, signs, all pairs"),
    Row("horizon_loo_share_compared", "share of pairs that both tell from zero"),
    Row("full_loo_r", "BIF against full leave-one-out, r", ">= .5"),
    Row("full_loo_sign", "the same, signs, pairs that both tell from zero", ">= .75"),
    Row("full_loo_sign_all", "the same, signs, all pairs"),
    Row("tangent_full_drop_r", "unrolled influence against full leave-one-out, r"),
    Row("sibling_flips", "sibling pairs that flip from helpful to harmful, share", "1"),
    Row("cousin_flips", "cousin pairs, share", "1"),
    Row("far_flips", "far pairs, share"),
    Row("transition_precision", "windows of the between signal, precision", ">= .9"),
    Row("transition_recall", "the same, recall", ">= .9"),
    Row("transition_timing", "the same, |log peak - log truth|"),
    Row("baseline_precision", "windows of loss differences alone, precision"),
    Row("baseline_recall", "the same, recall"),
    Row("baseline_timing", "the same, |log peak - log truth|"),
    Row("bif_norm_precision", "peaks of the norm of the BIF, precision"),
    Row("bif_norm_recall", "the same, recall"),
    Row("window_end_r", "window ablation read at the window's end, r with BIF", ">= .9"),
    Row("run_end_r", "the same, read at the end of the run"),
    Row("maximum_r", "the same, read as a maximum over the run"),
    Row("sibling_net_over_gross", "TracIn over the run, |net| / gross, siblings"),
    Row("cousin_net_over_gross", "the same, cousins"),
    Row("far_net_over_gross", "the same, far pairs"),
    Row("flagged_share", "share of probes that the callback flags"),
)


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"


def table_rows(summary: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Label, aim, median and range of each figure that is there."""
    return [
        (
            row.label,
            row.aim,
            _number(summary[row.name]["median"]),
            f"{_number(summary[row.name]['min'])} to {_number(summary[row.name]['max'])}",
        )
        for row in ROWS
        if row.name in summary
    ]


def _header(summary: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, str, str]:
    seeds = max((len(figure["seeds"]) for figure in summary.values()), default=0)
    return ("figure", "aim", "median", f"range over {seeds} seed{'s' if seeds != 1 else ''}")


def validation_table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The table in plain text.

    Args:
        summary: see :func:`~stagewise.experiments.toy.validation.summarize`.
    """
    rows: Sequence[tuple[str, str, str, str]] = [_header(summary), *table_rows(summary)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
    )


def validation_markdown(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    rows = [_header(summary), ("---", "---", "---:", "---"), *table_rows(summary)]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
