"""A run in memory with loss-free controls whose findings are known."""

import numpy as np

from tests.runs.flipping_run import STEPS, flipping_run

CONTROLLED = (0, 4, 9)
"""Probes with a control."""


def controlled_run():
    """Returns a run where ``cat`` goes beyond its control, ``dog`` survives in it, and their pair has no effect."""
    run = flipping_run()
    axes = ("step", "group", "group_j")
    shape = (len(STEPS), 2, 2)
    probe, control = np.full(shape, np.nan), np.full(shape, np.nan)
    for place in CONTROLLED:
        probe[place] = [[-2.0, 0.01], [0.01, -1.0]]
        control[place] = [[-0.5, 0.01], [0.01, -0.9]]
    for name, value, error in (
        ("control_probe_bif", probe, 0.1),
        ("control_group_bif", control, 0.1),
        ("control_difference", probe - control, 0.06),
    ):
        run[name] = (axes, value)
        run[f"{name}_se"] = (axes, np.where(np.isnan(value), np.nan, error))
    chains = np.full(len(STEPS), np.nan)
    chains[list(CONTROLLED)] = 8
    run["control_chains"] = ("step", chains)
    return run
