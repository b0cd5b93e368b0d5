from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.influence.baselines import graddot
from stagewise.influence.baselines.damped import damped_influence
from stagewise.influence.groups import Groups
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.target import Target
from tests.sampling.test_chains import squared
from tests.short_chains import SHORT

SGLD = replace(SHORT, num_chains=2, num_draws=4)


@pytest.fixture
def case():
    return nn.Linear(3, 1), (torch.randn(10, 3), torch.randn(10, 1))


def prober(module, batch, sgld=SGLD, **settings):
    return Prober(module, squared, ProbeData(batch), sgld=sgld, config=ProbeConfig(**settings))


def test_tracin_is_the_sum_of_the_rates_of_its_steps_times_product(case):
    module, batch = case
    watcher = prober(module, batch)
    total = 0.0
    for before, now, step in ((0.0, 0.4, 4), (0.4, 0.7, 10)):
        result, _ = watcher.probe(module, step, lr_sum=now)
        total += (now - before) * float(result["graddot"][0, 0])
        assert float(result["tracin"][0, 0]) == pytest.approx(total)
        with torch.no_grad():
            module.weight.add_(0.3)
    assert result["tracin"].attrs["units"] == "nats"


def test_steps_of_a_probe_that_is_left_out_count_with_the_next(case, monkeypatch):
    module, batch = case
    watcher = prober(module, batch)
    baselines, tracin = watcher.baselines, watcher.carried.tracin
    with monkeypatch.context() as broken:
        broken.setattr(graddot, "gradient_dot", lambda *args, **kwargs: np.array([[np.inf]]))
        assert "tracin" not in baselines.measure(module, 4, 0.4, tracin)
    found = baselines.measure(module, 10, 1.0, tracin)
    np.testing.assert_allclose(found["tracin"][1], found["graddot"][1])


def test_tracin_goes_on_from_its_saved_state(case):
    module, batch = case
    whole, resumed = prober(module, batch), prober(module, batch)
    whole.probe(module, 4, lr_sum=0.3)
    resumed.carried.tracin.load_state_dict(whole.carried.tracin.state_dict())
    first, second = (one.baselines.measure(module, 9, 0.4, one.carried.tracin)["tracin"][1] for one in (whole, resumed))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("step", "lr_sum"), [(0, 0.0), (1, None), (1, float("nan"))])
def test_tracin_needs_a_step_and_a_rate(case, step, lr_sum):
    module, batch = case
    assert "tracin" not in prober(module, batch).probe(module, step, lr_sum=lr_sum)[0]


def test_products_are_over_the_folds_and_chunks_of_the_settings_and_say_so(case):
    module, batch = case
    for folds, words in ((None, "in different samples"), (10, "in different samples"), (3, "in different folds of 3")):
        found = prober(module, batch, gradient_dot_folds=folds, chunk_size=2).probe(module, 1)[0]["graddot"]
        want = graddot.gradient_dot(
            module, Target(squared, batch), Groups({}, np.ones(10, dtype=bool)), num_folds=folds
        )
        np.testing.assert_allclose(found, want, rtol=1e-5)
        assert found.attrs["pairs"] == words


def test_products_keep_within_the_memory_limit_and_are_what_they_are_without(monkeypatch):
    module, batch = nn.Linear(40_000, 1), (torch.randn(4, 40_000), torch.randn(4, 1))
    gentle = replace(SGLD, lr=1e-6)
    blocks = []
    real = graddot.gradient_dot
    monkeypatch.setattr(
        graddot, "gradient_dot", lambda *args, **kwargs: blocks.append(kwargs["block_size"]) or real(*args, **kwargs)
    )
    whole = prober(module, batch, gentle)
    limit = whole.memory_gib - 100_000 / 2**30
    bounded = prober(module, batch, gentle, memory_limit_gib=limit)
    assert bounded.memory_gib == pytest.approx(limit, rel=1e-4)
    first, second = (
        item.baselines.measure(module, 1, None, item.carried.tracin)["graddot"][1] for item in (whole, bounded)
    )
    np.testing.assert_allclose(first, second, rtol=1e-4)
    assert blocks[0] is None
    assert blocks[1] == pytest.approx(40_001 - 100_000 / 8, abs=2)


def test_damped_influence_is_measured_where_it_is_asked_for(case):
    module, batch = case
    watcher = prober(module, batch, damped_influence=True)
    found = watcher.probe(module, 1)[0]["damped_influence"]
    want = damped_influence(module, Target(squared, batch), watcher.groups, posterior=LocalPosterior(10, 10))
    np.testing.assert_allclose(found, want)
    assert "negative = helpful" in found.attrs["sign"]
    assert "damped_influence" not in prober(module, batch).probe(module, 1)[0]


def test_damped_influence_has_the_weight_decay_of_the_chains(case):
    module, batch = case
    found = prober(module, batch, replace(SGLD, weight_decay=0.7), damped_influence=True).probe(module, 1)[0]
    groups = Groups({}, np.ones(10, dtype=bool))
    want = damped_influence(module, Target(squared, batch), groups, posterior=LocalPosterior(10, 10, 0.7))
    np.testing.assert_allclose(found["damped_influence"], want)
    without = damped_influence(module, Target(squared, batch), groups, posterior=LocalPosterior(10, 10))
    assert abs(float(want[0, 0])) < abs(float(without[0, 0]))


def test_damped_influence_says_why_where_it_is_refused(case):
    _, batch = case
    module = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.01)  # the saddle at the origin
    weak = SGLDConfig(lr=1e-4, nbeta=100, localization=0.1, num_draws=4, batch_size=4, engine="sequential")
    found = prober(module, batch, weak, damped_influence=True).probe(module, 1)[0]["damped_influence"]
    assert np.isnan(found).all()
    assert "positive definite" in found.attrs["refused"]
