"""Records and minibatches in blocks, as on a GPU, compared with those of a CPU, draw by draw."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.sampling import sgld, streams
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig

CONFIG = SGLDConfig(
    lr=1e-2, nbeta=10.0, localization=10.0, num_chains=3, num_draws=7, num_burnin_steps=3, num_steps_bw_draws=2,
    batch_size=4, max_loss_rise=1e6,
)  # fmt: skip


def loss(module, x):
    return module(x).square()


def in_blocks(monkeypatch, draws=3, steps=5):
    monkeypatch.setattr(sgld, "num_draws_on", lambda device: draws)
    monkeypatch.setattr(streams, "num_steps_ahead", lambda device: steps)


def traced(config, loss_fn=loss, **more):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return run_chains(module, loss_fn, observed=torch.randn(5, 3), sampling=torch.randn(9, 3), config=config, **more)


def assert_same(one, other):
    assert (one.chains, one.dropped) == (other.chains, other.dropped)
    for name in ("loss", "distance", "gradient_rms"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name
    assert one.minibatch_noise == other.minibatch_noise
    if one.reduced is not None:
        assert np.array_equal(one.reduced, other.reduced)


@pytest.mark.parametrize("engine", ["sequential", "batched"])
@pytest.mark.parametrize("drift", ["plain", "control_variate"])
@pytest.mark.parametrize("reduced", [False, True])
def test_blocks_give_the_same_draws_bit_for_bit(engine, drift, reduced, monkeypatch):
    config = replace(CONFIG, engine=engine, drift=drift)
    seen = []
    more = {"reduce": (lambda losses: losses.double().sum(dim=1)) if reduced else None}
    plain = traced(config, **more, on_draw=lambda chain, losses: seen.append((chain, losses.clone())))
    in_blocks(monkeypatch)
    again = []
    blocks = traced(config, **more, on_draw=lambda chain, losses: again.append((chain, losses.clone())))
    assert_same(plain, blocks)
    assert plain.loss.std(axis=1).min() > 0
    assert len(seen) == len(again) == 21
    assert all(one[0] == two[0] and torch.equal(one[1], two[1]) for one, two in zip(seen, again, strict=True))


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_a_chain_failing_in_a_block_is_dropped_for_the_same_reason(engine, monkeypatch):
    usual = traced(replace(CONFIG, engine=engine))
    means = usual.loss.mean(axis=(2, 3))
    limit = float(np.sort(means.max(axis=1))[-2:].mean() - usual.anchor_loss.mean())
    config = replace(CONFIG, engine=engine, max_loss_rise=limit)
    plain = traced(config)
    assert len(plain.dropped) == 1, "the limit is between two chains"
    in_blocks(monkeypatch)
    assert_same(plain, traced(config))


def test_non_finite_losses_are_found_in_blocks(monkeypatch):
    config = replace(CONFIG, engine="sequential", lr=0.1, nbeta=1e8)
    plain = traced(config, loss_fn=lambda module, x: module(x).exp())
    assert len(plain.dropped) == 3
    in_blocks(monkeypatch)
    assert_same(plain, traced(config, loss_fn=lambda module, x: module(x).exp()))
