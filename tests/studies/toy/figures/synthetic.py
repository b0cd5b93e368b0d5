"""Curves of no network, but of the right shapes and names, with flips and transitions at known places."""

import numpy as np
import xarray as xr

from stagewise.influence.split import PARTS
from stagewise.probes.schedule import LogSpaced, ProbeSchedule
from stagewise.studies.toy.config import InfluenceSettings, NetworkSettings, RetrainingSettings, ToyConfig
from stagewise.studies.toy.validation import measure
from stagewise.toy.hierarchy import Hierarchy

PAIRS = ("step", "item", "item_j")
CROSSING = {"self": 30.0, "sibling": 200.0, "cousin": 120.0, "far": 70.0}
LOPSIDED = {"thing": ["rock", {"animal": ["dog", {"bird": ["sparrow", "eagle", {"owl": ["tawny", "barn"]}]}]}]}


def config_of(hierarchy=None, *, seeds=(1, 2), weights=(0.0, 2.0)):
    return ToyConfig(
        seeds=list(seeds),
        hierarchy=hierarchy or Hierarchy(),
        network=NetworkSettings(hidden=6, num_steps=420),
        influence=InfluenceSettings(schedule=ProbeSchedule(log_spaced=LogSpaced(20, 400, 30))),
        retraining=RetrainingSettings(
            horizons=[5, 10], horizon=10, window_lengths=[20, 50], window_weights=list(weights), num_windows=4
        ),
    )


def influence_of(config, steps, rng, *, unit, noise=0.02, turn=1.0):
    """``[step, item, item_j]``, helpful, then harmful from ``CROSSING`` x ``turn`` on, but for the noise."""
    relations = config.hierarchy.relations
    crossing = np.vectorize(CROSSING.get)(relations) * turn
    curve = np.tanh(3 * np.log(np.asarray(steps)[:, None, None] / crossing))
    return unit * (curve + noise * rng.standard_normal((1, *relations.shape)))


def chains_of(config, rng, *, error=0.02, bumps=True):
    steps = np.array(config.probed_steps)
    hierarchy, probes, items = config.hierarchy, len(steps), len(config.hierarchy.items)
    names, bif = np.array(hierarchy.items, dtype=object), influence_of(config, steps, rng, unit=1e-5)
    bif = (bif + bif.swapaxes(1, 2)) / 2
    relations = [name for name in ("sibling", "cousin", "far") if (hierarchy.relations == name).any()]
    means = np.stack([bif[:, hierarchy.relations == name].mean(axis=1) for name in relations], axis=1)
    dot = influence_of(config, steps, rng, unit=-1.0)
    dot[:, np.eye(items, dtype=bool)] = np.nan
    signal = np.ones(probes)
    if bumps:
        signal = np.exp(-((np.log(steps[:, None] / np.array([60.0, 150.0])) / 0.15) ** 2)).sum(axis=1) + 1e-3
    signal[0] = np.nan
    parts = np.stack([bif, 0.1 * bif, -(np.nan_to_num(signal)[:, None, None] ** 2) * np.ones_like(bif)], axis=1)
    parts = np.concatenate([parts, parts.sum(axis=1, keepdims=True)], axis=1)
    return xr.Dataset(
        {
            "bif": (PAIRS, bif),
            "bif_se": (PAIRS, np.full(bif.shape, error * 1e-5)),
            "relation_bif": (("step", "relation"), means),
            "relation_bif_se": (("step", "relation"), np.full(means.shape, error * 1e-5)),
            "parts": (("step", "part", "item", "item_j"), parts),
            "graddot": (PAIRS, dot),
            "tracin": (PAIRS, dot.cumsum(axis=0)),
            "signal": ("step", signal),
            "signal_se": ("step", np.full(probes, 1e-4)),
            "reference_step": ("step", np.concatenate([steps[:1], steps[:-1]])),
        },
        coords={
            "step": steps,
            "item": names,
            "item_j": names,
            "relation": np.array(relations, dtype=object),
            "part": np.array(PARTS, dtype=object),
        },
        attrs={"num_chains": 32, "num_draws": 50, "probes_flagged": 1, "flags": {}, "flagged_steps": [50]},
    )


def exact_of(config, rng):
    steps, retraining, modes = config.probed_steps, config.retraining, config.hierarchy.modes()
    items, last = len(config.hierarchy.items), config.network.num_steps
    every = np.arange(last + 1)
    groups = modes.groups
    transitions = [60, 150, *range(200, 400, 200 // len(groups))][: len(groups)]
    at = np.concatenate([[step] * len(group) for group, step in zip(groups, transitions, strict=True)])
    strength = modes.strengths / (1 + np.exp(-(every[:, None] - at) / 15))
    starts = np.unique(np.rint(np.geomspace(steps[0], steps[-1] - 50, retraining.num_windows)).astype(int))
    windows = (len(retraining.window_weights), len(retraining.window_lengths), len(starts), items, items)
    curves = {
        name: (PAIRS, influence_of(config, steps, rng, unit=unit, turn=turn))
        for name, unit, turn in (
            ("unrolled", 0.5, 1.1),
            ("small_change", 0.5, 1.1),
            ("leave_one_out", 0.4, 1.2),
            ("closed_form", 0.6, 1.1),
        )
    }
    horizons = np.stack([influence_of(config, steps, rng, unit=0.05) for _ in retraining.horizons])
    gaussian_steps = steps[:: retraining.gaussian_every]
    curves |= {
        name: (("window_weight", "window_length", "window_start", "item", "item_j"), 0.1 * rng.standard_normal(windows))
        for name in ("window_end", "run_end", "maximum")
    }
    return xr.Dataset(
        {
            **curves,
            "horizon_effect": (("horizon", *PAIRS), horizons),
            "gaussian": (
                ("gaussian_step", "item", "item_j"),
                influence_of(config, gaussian_steps, rng, unit=1.1e-5),
            ),
            "mode_strength": (("training_step", "mode"), strength),
            "mode_strength_closed": (("training_step", "mode"), 0.98 * strength),
            "mode_error": ("mode", np.full(len(at), 0.02)),
            "mode_error_aligned": ("mode", np.full(len(at), 0.01)),
            "mode_limit": ("mode", modes.strengths),
            "loss": (("training_step", "item"), np.exp(-every / 60)[:, None] * (1 + rng.random(items))),
            "representation": (
                ("step", "item", "dimension"),
                np.linspace(0, 1, len(steps))[:, None, None] * rng.standard_normal((items, 3)),
            ),
        },
        coords={
            "step": steps,
            "training_step": every,
            "horizon": retraining.horizons,
            "gaussian_step": gaussian_steps,
            "window_weight": retraining.window_weights,
            "window_length": retraining.window_lengths,
            "window_start": starts,
        },
        attrs={
            "transitions": transitions,
            "half_times": [1.05 * step for step in transitions],
            "branching_times": {item.name: 150.0 + 10 * at for at, item in enumerate(config.hierarchy.branches())},
        },
    )


def results_of(config, **settings):
    """One result for each seed; ``error`` and ``bumps`` say how unsure influence is and whether the signal peaks."""
    found = []
    for seed in config.seeds:
        rng = np.random.default_rng(seed)
        found.append(measure(chains_of(config, rng, **settings), exact_of(config, rng), config, seed))
    return found
