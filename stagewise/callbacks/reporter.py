"""Reporting of probes: values for loggers and the progress bar, warnings, files, images, listeners and the summary."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import xarray as xr
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from stagewise.callbacks.board import Board
from stagewise.callbacks.fault_log import LISTENER, LOGGER, PROBE, Faults
from stagewise.callbacks.logger_writers import log_values, writers
from stagewise.callbacks.outcome import Outcome
from stagewise.callbacks.run_end import RunEnd
from stagewise.callbacks.run_state import RunSettings, RunState
from stagewise.callbacks.trainer_facts import bar_is_watched, show_on_bar
from stagewise.checks.counted import counted
from stagewise.influence.few_samples import few_samples_words
from stagewise.influence.groups import Groups
from stagewise.influence.stored_matrices import to_store
from stagewise.lm.classes.coverage import Coverage, class_coverage
from stagewise.probes.flags import drop_advice, without_larger_lr
from stagewise.probes.lost_samples import kinds_seen, not_finite_rows
from stagewise.reporting import tags
from stagewise.reporting.classes_page import classes_page, write_classes_page
from stagewise.reporting.probe_line import probe_line, strongest_now
from stagewise.reporting.tensorboard import images_due, write_matrices, write_text
from stagewise.runs.probe_files import STORE_NAME
from stagewise.runs.samples_file import write_samples
from stagewise.runs.store import ProbeStore
from stagewise.sampling.trace import NOT_FINITE_HERE, Trace

_SECONDS_BETWEEN_LINES = 1.0

_DROPS_TOLD = 3
"""Number of probes whose dropped chains are reported, in one line each."""

_REASONS_SHOWN = 2
"""Number of different reasons for dropped chains that a line names."""

Listener = Callable[[int, xr.Dataset | None], None]
"""Function of the training step of a probe and its data set (not to be changed; None if the probe raised or all its
chains failed).

Under DDP it is called on every rank; on ranks other than zero the data set lacks draws and matrices over samples and
tokens."""


class Reporter:
    """Reports the probes of a run as it proceeds. A failure in one place does not affect the others."""

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        state: RunState,
        settings: RunSettings,
        faults: Faults,
        listeners: Sequence[Listener],
        samples: xr.Dataset | None = None,
    ) -> None:
        """Reports nothing yet.

        Args:
            trainer: its loggers and progress bar receive the values.
            folder: of the run.
            state: of the run; each probe is added to its record.
            settings: of the probes.
            faults: collects failures.
            listeners: called after each probe, in order; more may be added later.
            samples: words and groups of the observed samples; None to keep none.
        """
        self._trainer, self._state, self._settings = trainer, state, settings
        self._folder, self._store = folder, ProbeStore(folder / STORE_NAME)
        self._faults, self._listeners = faults, listeners
        self._last_line = -math.inf
        self._samples = samples
        self._drops_told = 0
        self._board = Board(trainer, folder, state, settings, faults)

    def begin(self, given: Mapping[str, Tensor], groups: Groups) -> None:
        """Reports the contents of the observed set and its groups, on rank zero.

        Words of the samples go to ``samples.zip``, sizes of the groups to ``classes.md`` and the loggers.

        Args:
            given: masks as given by the user.
            groups: the same, fitted to the losses.
        """
        self._board.begin(groups)
        if not self._trainer.is_global_zero:
            return
        step = self._trainer.global_step
        few = few_samples_words(dict(zip(groups.names, (groups.counts > 0).sum(axis=1).tolist(), strict=True)))
        if given and few is not None and not self._state.record.steps:
            rank_zero_warn(f"stagewise: {few}")
        if self._samples is not None:
            with self._faults.contained(PROBE, step):
                write_samples(self._folder, self._samples)
        with self._faults.contained(LOGGER, step):
            if given:
                coverage = group_coverage(given, groups)
                page = classes_page(coverage.markdown(), unit=coverage.unit)
                write_classes_page(self._folder, page)
                write_text(writers(self._trainer, self._faults), tags.CLASSES, page, step)

    def skipped(self, step: int, max_overhead: float) -> None:
        """Counts a probe that the budget does not allow, and warns of the first one.

        Args:
            step: at which the probe was due.
            max_overhead: the budget.
        """
        record = self._state.record
        record.skipped_steps.append(step)
        if len(record.skipped_steps) == 1:
            rank_zero_warn(
                f"stagewise: the probe due at step {step} is skipped: another {record.last_probe_seconds or 0.0:.3g} s "
                f"would take probes beyond schedule.max_overhead={max_overhead:g} of the {record.training_seconds:.3g} "
                "s of training; later skips are counted (sampler/skipped, summary.json)"
            )
        log_values(self._trainer, {tags.SKIPPED: float(len(record.skipped_steps))}, step, self._faults)

    def keep(self, step: int, outcome: Outcome) -> None:
        """Counts a probe and, on rank zero, writes its file and then its images.

        Args:
            step: training step.
            outcome: of the probe.
        """
        record, result, dropped = self._state.record, outcome.result, outcome.trace.dropped
        record.add(step, result, chains_dropped=len(dropped), not_finite=NOT_FINITE_HERE in dropped.values())
        if result is None:
            return
        result.attrs |= self._settings.named
        if not self._trainer.is_global_zero:
            return
        with self._faults.contained(PROBE, step):
            self._store.write(to_store(result, self._settings.probe.sample_matrices))
        earlier = record.steps[-2] if len(record.steps) > 1 else None
        drawn = self._settings.probe.draw_matrices and images_due(earlier, step)
        with self._faults.contained(LOGGER, step):
            write_matrices(writers(self._trainer, self._faults) if drawn else (), result)
        with self._faults.contained(LOGGER, step):
            self._board.choose(result)
            self._board.update(step)

    def tell(self, step: int, outcome: Outcome | None) -> None:
        """Reports a probe: warnings, values by tag, progress bar, listeners.

        Args:
            step: training step.
            outcome: of the probe; None if it failed.
        """
        result = None if outcome is None else outcome.result
        if outcome is not None:
            self._warn_of_dropped_chains(outcome.trace, lost=result is None)
            if result is not None:
                self._warn_of_new_flags(step, result.attrs["flags"])
            values = self._values(outcome)
            log_values(self._trainer, values, step, self._faults, shown=self._board.shown(values))
            self._show(result)
        for listener in tuple(self._listeners):
            with self._faults.contained(LISTENER, step):
                listener(step, result)

    def _show(self, result: xr.Dataset | None) -> None:
        """Shows the state of the run on the progress bar; without one, a line for each probe, at most one a second."""
        record = self._state.record
        flagged = f", {len(record.flagged_steps)} flagged" if record.flagged_steps else ""
        show_on_bar(self._trainer, f"{counted(len(record.steps), 'probe')}{flagged}, {record.probe_seconds:.0f} s")
        if result is not None and not self._state.told_sure:
            pair, sure = strongest_now(result)
            if sure or self._state.told_pair is None:
                self._state.told_pair, self._state.told_sure = None if pair is None else list(pair), sure
        now = time.monotonic()
        if result is not None and not bar_is_watched(self._trainer) and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            rank_zero_info(f"stagewise: {probe_line(result, number=len(record.steps), pair=self._state.told_pair)}")

    def _values(self, outcome: Outcome) -> dict[str, float]:
        """Returns values by tag: measurements of a probe, and counts over the run."""
        record = self._state.record
        values = {tags.FLAGGED: 1.0} if outcome.result is None else outcome.logged()
        values[tags.CHAINS_DROPPED] = float(len(outcome.trace.dropped))
        if self._settings.schedule.max_overhead is not None:
            values[tags.SKIPPED] = float(len(record.skipped_steps))
        if record.overhead is not None:
            values[tags.OVERHEAD] = record.overhead
        return values

    def _warn_of_dropped_chains(self, trace: Trace, *, lost: bool) -> None:
        """Warns of the dropped chains of a probe in one line; after a few such probes they are only counted."""
        if trace.dropped and self._drops_told < _DROPS_TOLD:
            self._drops_told += 1
            counted = "; later ones are only counted (sampler/chains_dropped, summary.json)"
            last = counted if self._drops_told == _DROPS_TOLD else ""
            rank_zero_warn(f"stagewise: {dropped_words(trace, self._state.watch.config.num_chains, lost=lost)}{last}")

    def _warn_of_new_flags(self, step: int, flags: Mapping[str, str]) -> None:
        """Warns of each kind of flag when it first occurs in a run, all of a probe at once; later ones are counted."""
        too_large = self._state.stability.lr is not None
        texts = {name: without_larger_lr(words) if too_large else words for name, words in flags.items()}
        new = [f"{name}: {words}" for name, words in texts.items() if self._state.record.flags[name] == 1]
        if new:
            rank_zero_warn(
                f"stagewise: the probe at step {step} is flagged; later flags of these kinds are only counted "
                "(sampler/flagged, summary.json), probe.thresholds holds the limits\n- " + "\n- ".join(new)
            )

    def finish(self, *, complete: bool) -> None:
        """Ends the run: windows, verdict, ``summary.json``, figures; see :class:`RunEnd`.

        Args:
            complete: True if the run has ended and was not stopped by an error.
        """
        RunEnd(self._trainer, self._folder, self._state, self._settings, self._faults, self._board).report(
            complete=complete
        )


def group_coverage(given: Mapping[str, Tensor], groups: Groups) -> Coverage:
    """Returns the coverage of groups among the existing losses, in samples if no group distinguishes tokens.

    Args:
        given: masks as given by the user, ``[sample]`` or ``[sample, token]``.
        groups: the same, fitted to the losses.
    """
    masks, present = torch.from_numpy(groups.masks), torch.from_numpy(groups.present)
    if present.dim() == 2 and all(mask.dim() == 1 for mask in given.values()):
        masks, present = masks.any(dim=2), present.any(dim=1)
    return class_coverage(dict(zip(groups.names, masks, strict=True)), among=present)


def dropped_words(trace: Trace, num_chains: int, *, lost: bool) -> str:
    """Describes the dropped chains of a probe and what to do about them, in one line.

    If losses are not finite at the training weights themselves, no chain was run: the model or its data are at fault,
    not a setting of the sampler.

    Args:
        trace: of the probe, with dropped chains.
        num_chains: of the settings.
        lost: True if no chain was left.
    """
    if NOT_FINITE_HERE in trace.dropped.values():
        rows, samples = len(not_finite_rows(trace.anchor_loss)), len(trace.anchor_loss)
        seen = kinds_seen(trace.anchor_loss) or "beyond float32"
        return (
            f"the probe at step {trace.step} is left out and training goes on: {NOT_FINITE_HERE} ({seen}) "
            f"in {rows} of {samples} observed samples, so no chain was run; look at the model (its weights, the "
            "learning rate of training) and at its inputs"
        )
    reasons = list(dict.fromkeys(trace.dropped.values()))
    more = len(reasons) - _REASONS_SHOWN
    listed = ", ".join(reasons[:_REASONS_SHOWN]) + (
        f" and {more} other reason{'s' if more > 1 else ''}" if more > 0 else ""
    )
    were = "was" if len(trace.dropped) == 1 else "were"
    left_out = "; the probe is left out and training goes on" if lost else ""
    return (
        f"{len(trace.dropped)} of {counted(num_chains, 'chain')} of the probe at step {trace.step} {were} dropped: "
        f"{listed}{left_out}; {drop_advice(reasons)}"
    )
