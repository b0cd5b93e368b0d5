import numpy as np
import pytest
import torch
from torch import nn

from stagewise.influence.baselines.damped import damped_influence
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from tests.sampling.test_chains import squared

SGLD = SGLDConfig(
    lr=1e-3,
    nbeta=10,
    localization=10,
    num_chains=2,
    num_draws=4,
    batch_size=4,
    engine="sequential",
    num_burnin_steps=2,
    num_steps_bw_draws=1,
    drift="plain",
)


@pytest.fixture
def case():
    return nn.Linear(3, 1), (torch.randn(10, 3), torch.randn(10, 1))


def prober(module, batch, sgld=SGLD, **settings):
    return Prober(module, squared, ProbeData(batch), sgld=sgld, config=ProbeConfig(**settings))


def test_tracin_is_the_sum_of_rate_times_steps_times_product(case):
    module, batch = case
    watcher = prober(module, batch)
    total = 0.0
    for before, step, lr in ((0, 4, 0.1), (4, 10, 0.05)):
        result, _ = watcher.probe(module, step, lr=lr)
        total += lr * (step - before) * float(result["graddot"][0, 0])
        assert float(result["tracin"][0, 0]) == pytest.approx(total)
        with torch.no_grad():
            module.weight.add_(0.3)
    assert result["tracin"].attrs["units"] == "nats"


def test_tracin_goes_on_from_its_saved_state(case):
    module, batch = case
    whole, resumed = prober(module, batch), prober(module, batch)
    whole.probe(module, 4, lr=0.1)
    resumed.baselines.load_state_dict(whole.baselines.state_dict())
    first, second = (one.baselines.measure(module, 9, 0.1)["tracin"][1] for one in (whole, resumed))
    np.testing.assert_array_equal(first, second)


def test_tracin_needs_a_step_and_a_rate(case):
    module, batch = case
    watcher = prober(module, batch)
    assert "tracin" not in watcher.probe(module, 0, lr=0.1)[0]
    assert "tracin" not in watcher.probe(module, 1)[0]


def test_damped_influence_is_measured_where_it_is_asked_for(case):
    module, batch = case
    watcher = prober(module, batch, damped_influence=True)
    found = watcher.probe(module, 1)[0]["damped_influence"]
    want = damped_influence(module, squared, batch, watcher.groups, sampling=batch, nbeta=10, localization=10)
    np.testing.assert_allclose(found, want)
    assert "negative = helpful" in found.attrs["sign"]
    assert "damped_influence" not in prober(module, batch).probe(module, 1)[0]


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
