"""Cost of the chains of a probe: counted, against the calls that chains make, and timed."""

import time

import pytest
import torch
from torch import nn

from stagewise.probes.config import ProbeConfig
from stagewise.probes.cost import Evaluations, cost_words, evaluations, timed_step
from stagewise.probes.llc_config import LLCConfig
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.target import Target

BATCH = torch.randn(12, 3), torch.randn(12, 1)
SGLD = SGLDConfig(
    lr=1e-4, nbeta=10, localization=100, num_chains=2, num_draws=3, num_burnin_steps=4, num_steps_bw_draws=2,
    batch_size=4, engine="sequential",
)  # fmt: skip


def squared(module, batch):
    return (module(batch[0]) - batch[1]).square().sum(dim=1)


@pytest.mark.parametrize("drift", ["plain", "control_variate"])
def test_evaluations_are_those_that_chains_make(drift):
    calls = []

    def counted(module, batch):
        calls.append((torch.is_grad_enabled(), len(batch[0])))
        return squared(module, batch)

    sgld = SGLDConfig(**vars(SGLD) | {"drift": drift})
    run_chains(nn.Linear(3, 1), counted, observed=BATCH, sampling=BATCH, config=sgld)
    needed = evaluations(sgld, ProbeConfig(), control=False, weights=4, samples=12)
    # The observed set at the training weights too; noise of minibatches is measured by a few gradients more.
    assert needed.records == 2 * 3 == sum(size == 12 for _, size in calls) - 2
    steps = 2 * (4 + 3 * 2)
    assert needed.gradients == steps + (0 if drift == "plain" else 3)
    assert needed.gradients + 7 == sum(size == 4 for _, size in calls)
    most = evaluations(sgld, ProbeConfig(), control=False)
    assert most.gradients == (steps if drift == "plain" else 2 * steps)
    large = evaluations(sgld, ProbeConfig(), control=False, weights=10**8, samples=12)
    assert large == most


def test_own_chains_of_the_learning_coefficient_and_the_control_count():
    own = ProbeConfig(llc=LLCConfig(num_chains=1, num_draws=10))
    alone, both = (evaluations(SGLD, config, control=False) for config in (ProbeConfig(), own))
    assert both.records - alone.records == 10
    assert evaluations(SGLD, ProbeConfig(), control=True).records == 2 * alone.records


def test_seconds_are_those_of_a_gradient_and_of_the_observed_set_and_the_module_is_left_alone():
    class Slow(nn.Linear):
        def forward(self, x):
            time.sleep(0.002 * len(x))
            return super().forward(x)

    module = Slow(3, 1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    gradient, record = timed_step(module, Target(squared, BATCH, BATCH, chunk_size=5), 4)
    assert 0.008 <= gradient < 0.05
    assert 0.024 <= record < 0.1
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_words_have_one_probe_and_all():
    needed = Evaluations(1200, 80)
    assert cost_words(needed, 3.21, 40) == (
        "the chains of a probe take about 3.2 s by one timed step (1,200 gradients, 80 evaluations of the observed "
        "set), those of 40 probes 2 min"
    )
    assert cost_words(needed, 30, 1000).endswith("those of 1,000 probes 8.3 h")
    assert cost_words(needed, 30, None).endswith("observed set)")


def test_a_forward_pass_that_clips_its_weights_clips_none_of_the_training():
    class Clipped(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                self.weight.clamp_(-0.1, 0.1)
            return super().forward(x)

    module = Clipped(3, 1)
    nn.init.ones_(module.weight)
    before = module.weight
    timed_step(module, Target(squared, BATCH, BATCH), 4)
    assert module.weight is before
    assert torch.equal(before, torch.ones(1, 3))
    assert module.weight.grad is None
