"""A small run with every product that a probe has, as its callback would write it."""

from dataclasses import replace
from functools import cache

import torch
from torch import nn

from stagewise.influence.stored_matrices import SampleMatrices, to_store
from stagewise.probes.config import ProbeConfig
from stagewise.probes.llc_config import LLCConfig
from stagewise.probes.prober import Prober
from stagewise.runs.samples_file import samples_dataset, write_samples
from stagewise.runs.store import ProbeStore
from stagewise.sampling.data import ProbeData
from tests.short_chains import SHORT

STEPS = (10, 20, 40)
SGLD = replace(SHORT, num_draws=6)


def _losses(module, batch):
    return (module(batch[0]) - batch[1]).square(), batch[2]


@cache
def full_probes():
    """Returns measured probes at :data:`STEPS`; the second one has no control. Read only."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(8, 4, generator=generator) < 0.9
    batch = (torch.randn(8, 3, generator=generator), torch.randn(8, 4, generator=generator), mask)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
    config = ProbeConfig(
        position_bins=[0, 2, 4],
        token_samples=[5, 2],
        save_trace=True,
        control_every=2,
        damped_influence=True,
        llc=LLCConfig(nbeta=20.0, num_draws=6),
    )
    data = ProbeData(batch, groups={"few": torch.arange(8) < 3, "many": torch.arange(8) >= 2})
    watcher = Prober(net, _losses, data, sgld=SGLD, config=config)
    found = []
    for place, step in enumerate(STEPS):
        found.append(watcher.probe(net, step, lr_sum=0.1 * place)[0])
        with torch.no_grad():
            net[2].bias += 0.3
    return tuple(found)


def write_full_run(folder, kept=SampleMatrices.within):
    """Writes the run with these stored matrices; returns its log directory."""
    store = ProbeStore(folder / "influence.zarr")
    for probe in full_probes():
        store.write(to_store(probe, kept))
    words = [f"text {number}" for number in range(8)]
    write_samples(folder, samples_dataset(words, "text", {"few": torch.arange(8) < 3, "many": torch.arange(8) >= 2}))
    return folder
