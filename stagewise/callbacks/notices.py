"""What the user is told about the probes, beside the curves."""

from lightning.pytorch.utilities import rank_zero_warn

from stagewise.sampling.trace import Trace


def warn_of_dropped_chains(trace: Trace, *, lost: bool) -> None:
    """Name each chain that failed, and the probe if it lost them all.

    Args:
        trace: of the probe.
        lost: whether no chain was left.
    """
    for chain, reason in trace.dropped.items():
        rank_zero_warn(
            f"stagewise: chain {chain} of the probe at step {trace.step} was dropped: {reason}; lower sgld.lr or "
            "raise sgld.localization"
        )
    if lost:
        rank_zero_warn(
            f"stagewise: the probe at step {trace.step} lost all its chains and is left out; training goes on"
        )
