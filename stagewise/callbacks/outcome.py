"""Summary and messages at the end of a run."""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stagewise.callbacks.faults import LOGGER, PROBE, Faults
from stagewise.callbacks.notices import warn_of_counts
from stagewise.callbacks.trainer_facts import writers
from stagewise.errors import InputError
from stagewise.probes.config import ProbeConfig
from stagewise.probes.history import Record
from stagewise.reporting import tags
from stagewise.reporting.overview_files import write_overview
from stagewise.reporting.summary import build_summary, failures, summary_markdown
from stagewise.reporting.tensorboard import write_text
from stagewise.runs.store import open_run, write_summary
from stagewise.runs.verdict import VARIABLES, Verdict, judge
from stagewise.sampling.config import SGLDConfig


def write_outcome(
    trainer: Trainer,
    folder: Path,
    record: Record,
    *,
    config: SGLDConfig,
    probe: ProbeConfig,
    max_overhead: float | None,
    component: str | None = None,
    faults: Faults,
    complete: bool = True,
) -> None:
    """Detect windows, judge the run, write ``summary.json`` and the text page, and say where things are; on rank zero.

    Args:
        trainer: whose TensorBoard gets the text page and the windows.
        folder: of the run.
        record: what the probes came to.
        config: sampler settings of the run.
        probe: the measurement.
        max_overhead: budget of the schedule; None without one.
        component: whose weights the chains move; None for all.
        complete: whether the run has come to its end, and was not stopped by an error.
        faults: takes in what goes wrong in one part, so that the others are written.
    """
    step = trainer.global_step
    warn_of_counts(record, max_overhead)
    verdict = None
    with faults.contained(PROBE, step):
        verdict = _verdict(folder, record, probe)
    summary = build_summary(
        record,
        config=config,
        probe=probe,
        max_overhead=max_overhead,
        component=component,
        verdict=verdict,
        complete=complete,
    )
    with faults.contained(PROBE, step):
        write_summary(folder, summary)
    windows = record.windows(min_prominence=probe.min_prominence)
    with faults.contained(LOGGER, step):
        write_text(writers(trainer), tags.RUN_SUMMARY, summary_markdown(summary), step)
        for at in record.steps:
            inside = any(window.covers(at) for window in windows)
            # Steps that have passed: other loggers would drop them.
            for writer in writers(trainer):
                writer.add_scalar(tags.IN_WINDOW, float(inside), global_step=at)
    with faults.contained(LOGGER, step):
        if record.steps and probe.draw_matrices:
            write_overview(writers(trainer), folder, step)
    failed = {kind: count for kind, count in failures(record).items() if count}
    if failed:
        rank_zero_warn(f"stagewise: failed while training went on: {', '.join(f'{k} {n}' for k, n in failed.items())}")
    rank_zero_info(
        f"stagewise: {len(record.steps)} probes in {record.probe_seconds:.1f} s; windows at "
        f"{[window.peak for window in windows]}; results in {folder}"
    )
    if verdict is not None:
        rank_zero_info(f"stagewise: {verdict.text()}")


def _verdict(folder: Path, record: Record, probe: ProbeConfig) -> Verdict:
    try:
        run = open_run(folder, variables=VARIABLES) if record.steps else None
    except InputError as error:  # no probe that can be read: the run ends well all the same
        rank_zero_warn(f"stagewise: the verdict is left out: {error}")
        run = None
    windows = len(record.windows(min_prominence=probe.min_prominence))
    return judge(run, windows=windows, thresholds=probe.thresholds, flags=record.flags)
