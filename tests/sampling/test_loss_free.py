"""Chains without the loss: the same noise, no gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.sampling import chains, sgld
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.engines.sequential import SequentialEngine
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.sgld import loss_free, needs_gradients
from stagewise.sampling.target import Target

CONFIG = SGLDConfig(
    lr=0.02, nbeta=20.0, localization=50.0, num_chains=3, num_draws=5, num_burnin_steps=2, batch_size=4,
    engine="sequential", drift="control_variate",
)  # fmt: skip
MOMENTS = {"0.weight": torch.full((4, 3), 0.2), "0.bias": torch.full((4,), 0.1)} | {
    "2.weight": torch.full((1, 4), 0.4), "2.bias": torch.full((1,), 0.3),
}  # fmt: skip


def squared(module, batch):
    return ((module(batch[0]) - batch[1]) ** 2).sum(1) / 2


def sampler(config=CONFIG, **more):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    batch = (torch.randn(10, 3), torch.randn(10, 1))
    return ChainSampler(module, Target(squared, batch), config, **more)


def run(config=CONFIG, **how):
    return sampler(config).run(3, MOMENTS, **how)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"engine": "batched"},
        {"integrator": "euler", "start": "anchor", "drift": "plain"},
        {"preconditioner": AdamMoments(), "drift": "tilted", "weight_decay": 0.1},
    ],
)
def test_draws_equal_those_of_gradients_times_zero_bit_for_bit(monkeypatch, changes):
    config = replace(CONFIG, nbeta=0.0, **changes)
    cheap = run(config)
    for module in (sgld, chains):
        monkeypatch.setattr(module, "needs_gradients", lambda config: True)
    dear = run(config)
    np.testing.assert_array_equal(cheap.loss, dear.loss)
    np.testing.assert_array_equal(cheap.distance, dear.distance)
    assert cheap.minibatch_noise == dear.minibatch_noise == 0.0
    assert np.isnan(cheap.gradient_rms).all()
    assert (dear.gradient_rms > 0).all()


def test_no_gradient_is_evaluated_unless_a_preconditioner_adapts_to_them(monkeypatch):
    count = []
    evaluate = SequentialEngine.gradient
    monkeypatch.setattr(SequentialEngine, "gradient", lambda self, rows: count.append(1) or evaluate(self, rows))
    run(control=True)
    assert not count
    adapting = replace(CONFIG, preconditioner=RMSprop(), lr=1e-3)
    assert not needs_gradients(loss_free(CONFIG))
    assert needs_gradients(loss_free(adapting))
    run(adapting, control=True)
    assert count


@pytest.mark.parametrize("changes", [{}, {"engine": "batched", "integrator": "euler"}])
def test_the_control_has_the_noise_of_the_chains_it_controls(changes):
    faint = run(replace(CONFIG, nbeta=1e-9, **changes))
    control = run(replace(CONFIG, **changes), control=True)
    np.testing.assert_allclose(control.loss, faint.loss, rtol=1e-4)
    assert control.chains == faint.chains == (0, 1, 2)
    assert np.abs(control.loss - run(replace(CONFIG, **changes)).loss).max() > 1e-3


def test_noise_has_the_same_directions_under_ekfac():
    config = replace(CONFIG, preconditioner=EKFAC(loss="mse"), lr=0.3, drift="plain")
    faint = run(replace(config, nbeta=1e-9))
    np.testing.assert_allclose(run(config, control=True).distance, faint.distance, rtol=1e-4)
    np.testing.assert_allclose(run(config, control=True).loss, faint.loss, rtol=1e-3)


def test_loss_free_draws_have_the_variance_of_the_localization_alone():
    config = replace(CONFIG, num_draws=2000, num_chains=2, drift="plain", max_loss_rise=1e6)
    distance = run(config, control=True).distance.astype(float)
    # |w - w*|^2 of 21 weights, each of variance 1 / 50.
    assert (distance**2).mean() == pytest.approx(21 / 50, rel=0.05)


def test_loss_free_chains_keep_the_automatic_numbers_of_steps():
    config = replace(CONFIG, num_burnin_steps="auto", num_steps_bw_draws="auto")
    free = loss_free(config)
    assert (free.num_steps, free.seed, free.lr, free.localization) == (config.num_steps, 0, 0.02, 50.0)


def test_loss_free_runs_accept_a_subset_of_chains_and_a_reducer():
    whole = run(control=True)
    part = sampler().run(3, numbers=[0, 2], control=True, reduce=lambda losses: losses.sum().reshape(1))
    np.testing.assert_array_equal(part.loss, whole.loss[[0, 2]])
    np.testing.assert_allclose(part.reduced[:, :, 0], whole.loss[[0, 2]].sum(axis=2), rtol=1e-5)
    # The sampler's own settings are unchanged.
    assert sampler().run(3).reduced is None


def test_zero_localization_is_refused_without_the_loss():
    with pytest.raises(InputError, match="localization > 0"):
        loss_free(replace(CONFIG, localization=0.0, start="anchor"))
