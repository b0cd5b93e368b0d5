"""Report of a run in words and figures: results of its influence curves, and their limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from stagewise.files.writing import write_json, write_text_file
from stagewise.influence.sign import SIGN
from stagewise.reporting import tags
from stagewise.reporting.class_maps import class_maps
from stagewise.reporting.classes_page import classes_section
from stagewise.reporting.control_curves import control_curves
from stagewise.reporting.event_scalars import PATTERN
from stagewise.reporting.html.repeating import as_python, from_command_line
from stagewise.reporting.influence_curves import influence_curves
from stagewise.reporting.llc_curves import llc_curves, llc_words
from stagewise.reporting.sample_tables import no_ranking_words, sample_tables
from stagewise.reporting.score_words import scores_markdown
from stagewise.reporting.scores import Score, read_scores
from stagewise.reporting.spans_table import BESIDE_SIGN_CHANGES, SPANS_TITLE, spans_table
from stagewise.reporting.tensorboard import rasterize
from stagewise.runs.control import ControlFindings, control_findings
from stagewise.runs.llc_table import has_llc, no_llc_words
from stagewise.runs.sign_changes import SignChanges, find_sign_changes
from stagewise.runs.summary_file import summary_of
from stagewise.runs.words import about, verdict_text, windows_text, with_plain_names

REPORT_NAME, CHANGES_NAME = "report.md", "sign_changes.json"

_TAGS = {"classes_within": tags.class_maps("within"), "curves_within": tags.curves("within"), "llc": tags.LLC_CURVES}
"""Tags of the figures that TensorBoard shows."""


def _control(control: ControlFindings | None, picture: str | None) -> list[str]:
    if control is None or picture is None:
        return [
            "No loss-free control was run: set `probe.control_every` to see which effects survive without the loss."
        ]
    return [control.markdown(), picture]


def draw_run(run: xr.Dataset) -> dict[str, Figure]:
    """Draws the figures of a report for which the run has data, by the names of their files.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with plain names of groups.

    Raises:
        InputError: no group influence.
    """
    figures = {
        "curves_within": influence_curves(run, part="within"),
        "classes_within": class_maps(run, part="within"),
    }
    if control_findings(run) is not None:
        figures["control"] = control_curves(run)
    if has_llc(run):
        figures["llc"] = llc_curves(run)
    return figures


def _write_events(folder: Path, output: Path, figures: Mapping[str, Figure], step: int) -> None:
    """Writes images for TensorBoard, replacing those of an earlier report, unless the run itself has event files."""
    for earlier in output.glob(PATTERN):
        earlier.unlink()
    if any(folder.glob(PATTERN)):
        return
    with SummaryWriter(str(output)) as writer:
        for name, tag in _TAGS.items():
            if name in figures:
                writer.add_image(tag, rasterize(figures[name]), global_step=step, dataformats="HWC")


def write_run_report(
    folder: Path,
    run: xr.Dataset,
    output: Path,
    *,
    chance: float = 0.05,
    figures: Mapping[str, Figure] | None = None,
    scores: Sequence[Score] | None = None,
) -> tuple[Path, SignChanges]:
    """Writes ``report.md``, its figures, ``sign_changes.json``, and images if TensorBoard does not show the run.

    Args:
        folder: of the run, with its scores.
        run: as :func:`~stagewise.runs.open.open_run` returns it, with group influence and two probes or more.
        output: folder for the files.
        chance: see :func:`~stagewise.runs.sign_changes.find_sign_changes`; also that of a stage boundary.
        figures: of :func:`draw_run`, if already drawn.
        scores: of heads, if already read.

    Returns:
        Path of the report, and the sign changes.

    Raises:
        InputError: no group influence, or a single probe.
    """
    summary = summary_of(run)
    run = with_plain_names(run)
    changes = find_sign_changes(run, chance=chance)
    verdict = verdict_text(run)
    figures = draw_run(run) if figures is None else figures
    control = control_findings(run)
    captions = {
        "control": "Influence within each probe, and of chains without the loss, from the same noise.",
        "curves_within": "Influence of groups on each other, within the present phase.",
        "classes_within": "Influence of each group on each other one, at some probes.",
        "llc": "Local learning coefficient of all losses and of each group.",
    }
    output.mkdir(parents=True, exist_ok=True)
    pictures = {}
    (output / "control.png").unlink(missing_ok=True)
    for name, figure in figures.items():
        figure.savefig(output / f"{name}.png", dpi=110)
        figure.set_layout_engine("none")  # the layout is done, and slow to repeat
        pictures[name] = f"![{captions[name]}]({name}.png)\n\n*{captions[name]}*"
    _write_events(folder, output, figures, int(run["step"].values[-1]))
    write_json(
        output / CHANGES_NAME,
        {
            "sign": SIGN,
            "chance_of_one_curve": changes.chance,
            "curves": changes.num_curves,
            "probes": changes.num_probes,
            "changes": [change.record() for change in changes.found],
        },
    )
    parts = ["# What the influence of this run shows", "## Verdict", verdict, "## The run", about(run, summary)]
    spans = spans_table(run)
    parts += [] if spans is None else [f"## {SPANS_TITLE}", spans.markdown()]
    parts += [
        "## Sign changes",
        changes.markdown(),
        *([BESIDE_SIGN_CHANGES] if spans is not None and spans.rows else []),
        "## Heads",
        scores_markdown(run, read_scores(folder) if scores is None else scores),
    ]
    samples = sample_tables(run)
    parts += [
        "## Most helpful and most harmful samples",
        no_ranking_words(run) if samples is None else samples.markdown(),
    ]
    if has_llc(run):
        parts += ["## Learning coefficient", llc_words(run, chance=chance), pictures.pop("llc")]
    else:
        missing = no_llc_words(run)
        parts += ["## Learning coefficient", missing if from_command_line(folder) else as_python(missing)]
    parts += ["## Loss-free control", *_control(control, pictures.pop("control", None))]
    parts += ["## Transition windows", windows_text(summary, run)]
    classes = classes_section(folder)
    parts += [] if classes is None else [classes]
    parts += ["## Curves", *pictures.values()]
    return write_text_file(output / REPORT_NAME, "\n\n".join(parts) + "\n"), changes
