"""End of a run: windows, verdict, ``summary.json``, figures, warnings, and the last lines on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stagewise.callbacks.board import Board
from stagewise.callbacks.fault_log import LOGGER, PROBE, Faults
from stagewise.callbacks.logger_writers import log_values, writers
from stagewise.callbacks.run_state import RunSettings, RunState
from stagewise.checks.counted import counted
from stagewise.errors import InputError
from stagewise.phases.window import Window
from stagewise.probes.history import Record
from stagewise.reporting import tags
from stagewise.reporting.sample_tables import NEEDED
from stagewise.reporting.sample_text import write_sample_text
from stagewise.reporting.summary import build_summary, failures
from stagewise.runs.equilibrium import flag_line
from stagewise.runs.open import open_run
from stagewise.runs.stability import lost_words
from stagewise.runs.store import write_summary
from stagewise.runs.summary_file import summary_text
from stagewise.runs.verdict import VARIABLES, Verdict, judge


class RunEnd:
    """Reports a run that has ended. A failure in one place does not affect the others."""

    def __init__(
        self, trainer: Trainer, folder: Path, state: RunState, settings: RunSettings, faults: Faults, board: Board
    ) -> None:
        """Reports nothing yet.

        Args:
            trainer: its loggers receive the values.
            folder: of the run.
            state: of the run.
            settings: of the probes.
            faults: collects failures.
            board: the display of the run in TensorBoard.
        """
        self._trainer, self._folder, self._state = trainer, folder, state
        self._settings, self._faults, self._board = settings, faults, board

    def report(self, *, complete: bool) -> None:
        """Detects windows, judges the run, writes ``summary.json`` and the text page, and prints where the results are.

        On rank zero; other ranks receive the values that callbacks monitor.

        Args:
            complete: True if the run has ended and was not stopped by an error.
        """
        record, probe = self._state.record, self._settings.probe
        windows = record.windows(min_prominence=probe.min_prominence)
        if not self._trainer.is_global_zero:
            self._log_outcomes(windows)
            return
        max_overhead, step = self._settings.schedule.max_overhead, self._trainer.global_step
        warn_of_counts(record, max_overhead)
        run = verdict = None
        with self._faults.contained(PROBE, step):
            run = self._run()
            verdict = self._verdict(run)
        summary = build_summary(
            record,
            config=self._state.watch.config,
            probe=probe,
            max_overhead=max_overhead,
            component=self._settings.component,
            verdict=verdict,
            complete=complete,
            findings=self._state.watch.findings,
        )
        with self._faults.contained(PROBE, step):
            path = write_summary(self._folder, summary)
            if run is not None:
                run.attrs["summary"] = summary_text(path)
        self._log_outcomes(windows)
        self._display(run, summary, windows)
        self._print(windows, verdict)

    def _display(self, run: xr.Dataset | None, summary: dict[str, Any], windows: Sequence[Window]) -> None:
        """Gives windows, summary, figures and texts of samples to the loggers."""
        step = self._trainer.global_step
        with self._faults.contained(LOGGER, step):
            targets = writers(self._trainer, self._faults)
            for at in self._state.record.steps:
                inside = any(window.covers(at) for window in windows)
                for writer in targets:
                    writer.add_scalar(tags.IN_WINDOW, float(inside), global_step=at)
            # Last, since W&B assigns the latest step to everything logged without one.
            self._board.finish(summary, step)
        with self._faults.contained(LOGGER, step):
            if run is not None and self._settings.probe.draw_matrices:
                self._board.draw(run, step)
        with self._faults.contained(LOGGER, step):
            if run is not None:
                write_sample_text(writers(self._trainer, self._faults), run, step)

    def _print(self, windows: Sequence[Window], verdict: Verdict | None) -> None:
        """Prints the outcome, and warns of failures."""
        record = self._state.record
        failed = {kind: count for kind, count in failures(record).items() if count}
        if failed:
            listed = ", ".join(f"{kind} {count}" for kind, count in failed.items())
            rank_zero_warn(f"stagewise: failures during training, which continued: {listed}")
        rank_zero_info(
            f"stagewise: {probes_words(record)} in {record.time_words}; {windows_words(windows)}; results in "
            f"{self._folder}"
        )
        if verdict is not None:
            rank_zero_info(f"stagewise: {verdict.text()}")

    def _log_outcomes(self, windows: Sequence[Window]) -> None:
        record = self._state.record
        if record.steps:
            log_values(self._trainer, outcomes(record, windows), self._trainer.global_step, self._faults)

    def _run(self) -> xr.Dataset | None:
        """Opens the finished run, once for all reports; None without a probe."""
        if not self._state.record.steps:
            return None
        drawn = self._settings.probe.draw_matrices  # the overview needs all variables
        try:
            return open_run(self._folder, variables=None if drawn else (*VARIABLES, *NEEDED))
        except InputError as error:  # no readable probe; the run still ends normally
            rank_zero_warn(f"stagewise: the verdict is left out: {error}")
            return None

    def _verdict(self, run: xr.Dataset | None) -> Verdict:
        record, probe = self._state.record, self._settings.probe
        windows = len(record.windows(min_prominence=probe.min_prominence))
        return judge(
            run, windows=windows, thresholds=probe.thresholds, flags=record.flags, stability=self._state.stability
        )


def outcomes(record: Record, windows: Sequence[Window]) -> dict[str, float]:
    """Returns the values by which runs are compared, by tag."""
    values = {
        tags.NUM_WINDOWS: float(len(windows)),
        # A lost probe counts as flagged, as in its own value.
        tags.FLAGGED_SHARE: (len(record.flagged_steps) + len(record.failed_steps)) / record.num_due,
    }
    return values | ({tags.FIRST_PEAK: float(windows[0].peak)} if windows else {})


def probes_words(record: Record) -> str:
    """Counts the probes that were kept, out of those due if some lost all their chains."""
    kept = len(record.steps)
    return f"{kept} of {counted(record.num_due, 'probe')}" if record.failed_steps else counted(kept, "probe")


def windows_words(windows: Sequence[Window]) -> str:
    """Lists the peaks of transition windows."""
    if not windows:
        return "no window"
    return f"window{'' if len(windows) == 1 else 's'} at {', '.join(str(window.peak) for window in windows)}"


def warn_of_counts(record: Record, max_overhead: float | None) -> None:
    """Warns of dropped chains, flagged probes and skipped probes at the end of a run."""
    probes = len(record.steps)
    if record.chains_dropped:
        lost = f"; {lost_words(record.failed_steps)} kept none" if record.failed_steps else ""
        verb = "was" if record.chains_dropped == 1 else "were"
        rank_zero_warn(f"stagewise: {counted(record.chains_dropped, 'chain')} {verb} dropped over the run{lost}")
    if record.flagged_steps:
        rank_zero_warn(f"stagewise: flagged {flag_line(record.flags, len(record.flagged_steps), probes)}")
    if record.skipped_steps:
        due = probes + len(record.failed_steps) + len(record.skipped_steps)
        rank_zero_warn(
            f"stagewise: {len(record.skipped_steps)} of {due} due probes were skipped to stay within "
            f"schedule.max_overhead={max_overhead}; results depend on the machine's speed"
        )
