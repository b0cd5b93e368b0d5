"""The loss-free control of a probe, end to end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from stagewise.errors import InputError
from stagewise.probes.config import ProbeConfig
from stagewise.probes.memory import ProbeSize, memory_needed
from stagewise.probes.prober import Prober
from stagewise.reporting.scalars import probe_scalars
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.share import ChainShare

SGLD = SGLDConfig(
    lr=0.02, nbeta=20.0, localization=50.0, num_chains=4, num_draws=6, batch_size=4, engine="sequential"
)  # fmt: skip
EVERY = ProbeConfig(control_every=2)


def squared(module, batch):
    return ((module(batch[0]) - batch[1]) ** 2).sum(1) / 2


def linear(module, batch):
    return module(batch[0])[:, 0]


def prober(config=EVERY, sgld=SGLD, loss=squared, **more):
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    data = ProbeData((torch.randn(10, 3), torch.randn(10, 1)), groups={"few": torch.arange(10) < 4})
    return module, Prober(module, loss, data, sgld=sgld, config=config, **more)


def test_every_second_probe_has_a_control_and_the_others_are_as_without():
    module, with_control = prober()
    _, without = prober(ProbeConfig())
    for number, step in enumerate((1, 5, 9, 13)):
        probe, bare = with_control.probe(module, step)[0], without.probe(module, step)[0]
        names = [name for name in probe if name.startswith("control_")]
        assert bool(names) == (number % 2 == 0)
        # What is measured beside it does not move by a bit.
        xr.testing.assert_identical(probe.drop_vars([*names, "seconds"]), bare.drop_vars("seconds"))


def test_its_number_in_the_run_tells_when_it_is_due():
    module, watcher = prober()
    assert "control_group_bif" not in watcher.probe(module, 1, number=3)[0]
    assert "control_group_bif" in watcher.probe(module, 2)[0]
    assert "control_group_bif" in watcher.measure(module, 3, number=0)[0].own


def test_of_a_linear_loss_the_control_is_the_gradient_dot_product_and_so_is_the_probe():
    """Losses that are linear in the weights have no landscape: nothing but the gradients is to be seen."""
    sgld = replace(SGLD, num_chains=8, num_draws=400, batch_size=10)
    module, watcher = prober(ProbeConfig(control_every=1), sgld, loss=linear)
    probe = watcher.probe(module, 1)[0]
    # Gradients: of the weights, then of the bias.
    x = torch.cat([watcher.subject.target.observed[0][:4], torch.ones(4, 1)], dim=1).numpy()
    products = x @ x.T
    want = -products[~np.eye(4, dtype=bool)].mean() / 50.0
    np.testing.assert_allclose(probe["control_group_bif"], want, rtol=0.15)
    # The loss only moves the mean of the chains.
    np.testing.assert_allclose(probe["control_difference"], 0.0, atol=0.01 * abs(want).max())


def test_a_bent_loss_is_told_from_its_control():
    sgld = replace(SGLD, nbeta=200.0, lr=0.004, num_chains=8, num_draws=60, batch_size=10)
    module, watcher = prober(ProbeConfig(control_every=1), sgld)
    probe = watcher.probe(module, 1)[0]
    z = probe["control_difference"] / probe["control_difference_se"]
    assert (z > 5).all()
    assert (probe["control_difference"] == probe["control_probe_bif"] - probe["control_group_bif"]).all()


def test_it_is_logged_under_the_tag_of_the_contract_and_counted_in_the_probes_time():
    module, watcher = prober()
    probe, bare = watcher.probe(module, 1)[0], watcher.probe(module, 2)[0]
    assert probe_scalars(probe)["control/few~few"] == float(probe["control_group_bif"].sel(group="few", group_j="few"))
    assert "control/few~few" not in probe_scalars(bare)
    assert float(probe["seconds"]) > 0


@pytest.mark.parametrize("save_trace", [True, False])
def test_whether_draws_are_kept_makes_no_difference(save_trace):
    module, watcher = prober(replace(EVERY, save_trace=save_trace))
    _, other = prober(replace(EVERY, save_trace=not save_trace))
    one, two = watcher.probe(module, 1)[0], other.probe(module, 1)[0]
    np.testing.assert_allclose(one["control_group_bif"], two["control_group_bif"], rtol=1e-4)


def test_masks_hold_for_the_control_too():
    mask = {"weight": torch.tensor([[True, False, False]]), "bias": torch.tensor([False])}
    module, watcher = prober(masks=mask)
    found = watcher.probe(module, 1)[0]["control_group_bif"]
    _, free = prober()
    assert (abs(found) > 0).all()
    assert (abs(found) < 0.9 * abs(free.probe(module, 1)[0]["control_group_bif"])).all()


def test_processes_that_share_the_chains_find_what_one_finds():
    module, whole = prober()
    sent = []

    def send(work):
        sent.append(work())

    _, second = prober(share=ChainShare(1, 2, collect=send))
    assert second.measure(module, 1)[0] is None
    assert len(sent) == 1
    _, first = prober(share=ChainShare(0, 2, collect=lambda work: [work(), sent.pop(0)]))
    got, want = first.measure(module, 1)[0].own, whole.measure(module, 1)[0].own
    for name in ("control_group_bif", "control_difference", "control_difference_se", "control_chains"):
        np.testing.assert_array_equal(got[name], want[name])


def test_chains_that_only_the_loss_held_are_lost_to_the_control_alone():
    sgld = replace(
        SGLD, nbeta=2000.0, localization=2.0, lr=5e-4, num_burnin_steps=100, batch_size=10, max_loss_rise=0.3
    )  # fmt: skip
    module, watcher = prober(sgld=sgld)
    torch.nn.init.zeros_(module.weight)
    probe, trace = watcher.probe(module, 1)
    assert trace.chains == (0, 1, 2, 3)
    assert int(probe["control_chains"]) < 4
    assert int(probe["chains_dropped"]) == 0


def test_its_draws_are_counted_in_the_memory():
    sizes = {"num_samples": 64, "num_chains": 8, "num_draws": 16, "num_groups": 3}
    with_control, without = (
        memory_needed(ProbeSize(**sizes, control=number))["group x group"] for number in (True, False)
    )
    assert with_control > without
    # Four copies of the reduced draws in float64: samples, and three groups.
    assert (with_control - without) * 2**30 == 4 * 8 * 8 * 16 * 64 * 4


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_control_every_counts_probes(bad):
    with pytest.raises(InputError, match=r"got control_every=.*; expected a (number of probes|whole number).* null"):
        ProbeConfig(control_every=bad)
