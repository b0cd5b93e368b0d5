"""A run whose transition is known, written as a callback writes one."""

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.influence.llc import llc, mean_losses_of
from stagewise.phases.between_norm import between_norm
from stagewise.probes.references import References
from stagewise.runs.store import ProbeStore

STEPS = np.unique(np.geomspace(50, 1000, 44).astype(int))
MIDDLE = 400.0
DROPS = np.array([2.0, 1.5, 1.0, 0.1, 0.1, 0.1])
GROUPS = Groups({"early": [1, 1, 1, 0, 0, 0], "late": [0, 0, 0, 1, 1, 1]}, [1] * 6)


def losses_at(step):
    """``[sample]``: three samples are learnt at MIDDLE, three hardly."""
    return 3.0 - DROPS / (1 + np.exp(-(np.log(step) - np.log(MIDDLE)) / 0.05))


@cache
def _written(seed):
    """The whole run in a folder that lasts as long as the process."""
    folder = TemporaryDirectory()
    _write(Path(folder.name), STEPS, seed)
    return folder


def write_run(folder, *, steps=None, seed=0):
    """Write the probes of a run, at :data:`STEPS` if None; returns the path of its log directory."""
    if steps is None:
        return shutil.copytree(_written(seed).name, folder, dirs_exist_ok=True)
    return _write(folder, steps, seed)


def _write(folder, steps, seed):
    rng = np.random.default_rng(seed)
    store, references = ProbeStore(folder / "influence.zarr"), References(1.15)
    for step in map(int, steps):
        # What the learnt samples have in common grows while they are learnt.
        common = 0.05 + 0.3 * np.exp(-(((np.log(step) - np.log(MIDDLE)) / 0.1) ** 2))
        draws = losses_at(step) + 0.05 * rng.standard_normal((4, 40, 6))
        draws[:, :, :3] += common * rng.standard_normal((4, 40, 1))
        chains = (0, 1, 2, 3)
        features = GroupDraws(step, chains, draws, GROUPS.sums(draws))
        probe = bif(features, references.for_step(step), GROUPS)
        references.add(features)
        if probe.attrs["reference_step"] == step:
            signal = (np.nan, np.nan, np.nan)
        else:
            signal = between_norm(probe["shift"], probe["shift_se"], float(probe["shift_norm_se"]))
        for name, value in zip(("signal", "signal_se", "signal_threshold"), signal, strict=True):
            probe[name] = value
        # A learning coefficient that rises to a maximum at MIDDLE and falls again.
        peak = np.exp(-(((np.log(step) - np.log(MIDDLE)) / 0.3) ** 2))
        anchor = losses_at(step) - 0.02 - 0.3 * peak
        means = np.array([anchor.mean(), *GROUPS.means(anchor)])
        probe = probe.assign(llc(mean_losses_of(features, GROUPS), means, GROUPS, nbeta=30.0))
        probe["anchor_loss"] = ("sample", losses_at(step).astype(np.float32))
        probe["group_loss"] = ("group", GROUPS.means(losses_at(step)))
        probe["chain_share"] = abs(0.02 * rng.standard_normal())
        probe["loss"] = (("chain", "draw", "sample"), draws.astype(np.float32))
        probe.coords["chain"] = list(chains)
        probe.attrs["sgld"] = {"num_chains": 4}
        store.write(probe)
    return folder
