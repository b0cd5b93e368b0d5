"""Messages about the probes, beside the curves."""

from collections.abc import Mapping

from lightning.pytorch.utilities import rank_zero_warn

from stagewise.probes.history import Record
from stagewise.probes.lost_samples import kinds_seen, not_finite_rows
from stagewise.runs.equilibrium import flag_line
from stagewise.sampling.trace import NOT_FINITE_HERE, Trace


def warn_of_dropped_chains(trace: Trace, *, lost: bool) -> None:
    """Name each chain that failed and what to do about it, and the probe if it lost them all.

    Where losses are not finite at the training weights themselves, no chain was run: that is told once, and it is the
    model or its data that is to be looked at, no setting of the sampler.

    Args:
        trace: of the probe.
        lost: whether no chain was left.
    """
    if NOT_FINITE_HERE in trace.dropped.values():
        rows, samples = len(not_finite_rows(trace.anchor_loss)), len(trace.anchor_loss)
        seen = kinds_seen(trace.anchor_loss) or "beyond float32"
        rank_zero_warn(
            f"stagewise: the probe at step {trace.step} is left out and training goes on: {NOT_FINITE_HERE} ({seen}) "
            f"in {rows} of {samples} observed samples, so no chain was run; look at the model (its weights, the "
            "learning rate of training) and at what it is given"
        )
        return
    for chain, reason in trace.dropped.items():
        rank_zero_warn(
            f"stagewise: chain {chain} of the probe at step {trace.step} was dropped: {reason}; lower sgld.lr or "
            "raise sgld.localization"
        )
    if lost:
        rank_zero_warn(
            f"stagewise: the probe at step {trace.step} lost all its chains and is left out; training goes on"
        )


def warn_of_new_flags(step: int, flags: Mapping[str, str], record: Record) -> None:
    """Tell of each kind of flag when it first occurs in a run, all of a probe at once; later ones are only counted.

    Args:
        step: of the probe.
        flags: of the probe, name to words.
        record: of the run, the probe included.
    """
    new = [f"{name}: {words}" for name, words in flags.items() if record.flags[name] == 1]
    if new:
        rank_zero_warn(
            f"stagewise: the probe at step {step} is flagged; later flags of these kinds are only counted "
            "(sampler/flagged, summary.json), probe.thresholds holds the limits\n- " + "\n- ".join(new)
        )


def warn_of_first_skip(step: int, max_overhead: float, record: Record) -> None:
    """Tell of the first probe that the budget does not allow.

    Args:
        step: at which a probe was due.
        max_overhead: the budget.
        record: of the run, the skipped probe included.
    """
    if len(record.skipped_steps) == 1:
        rank_zero_warn(
            f"stagewise: the probe due at step {step} is skipped: another {record.last_probe_seconds or 0.0:.3g} s "
            f"would take probes beyond schedule.max_overhead={max_overhead:g} of the {record.training_seconds:.3g} s "
            "of training; later skips are counted (sampler/skipped, summary.json)"
        )


def warn_of_counts(record: Record, max_overhead: float | None) -> None:
    """At the end of a run: how many probes were flagged, and how many the budget did not allow."""
    probes = len(record.steps)
    if record.flagged_steps:
        rank_zero_warn(f"stagewise: flagged {flag_line(record.flags, len(record.flagged_steps), probes)}")
    if record.skipped_steps:
        due = probes + len(record.failed_steps) + len(record.skipped_steps)
        rank_zero_warn(
            f"stagewise: {len(record.skipped_steps)} of {due} due probes were skipped to stay within "
            f"schedule.max_overhead={max_overhead}; results depend on the machine's speed"
        )
