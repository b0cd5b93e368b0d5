"""Memory of chains, compared with the counts of torch's allocator."""

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.sampling import chains, heat, memory
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.memory import chain_memory, pass_bytes
from stagewise.sampling.target import Target
from tests.lm_families import build

GIB = 2**30
CONFIG = SGLDConfig(
    lr=1e-5, nbeta=10.0, localization=100.0, num_chains=2, num_draws=2, num_burnin_steps=0, num_steps_bw_draws=1,
    drift="plain", engine="sequential",
)  # fmt: skip


def peak_of(run):
    """Returns the peak of allocated memory from the allocator's events, GiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        run()
    events = [event for event in watch.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most / GIB


@pytest.mark.parametrize(
    ("width", "layers", "batch", "length", "integrator", "drift", "kept_bytes"),
    [
        (256, 4, 2, 16, "leimkuhler_matthews", "plain", 2**28),
        (128, 4, 2, 32, "euler", "plain", 2**28),
        (64, 3, 32, 32, "leimkuhler_matthews", "plain", 2**28),
        (128, 4, 2, 32, "leimkuhler_matthews", "control_variate", 2**28),
        (128, 4, 2, 32, "leimkuhler_matthews", "control_variate", 0),
    ],
)
def test_memory_of_chains_is_within_a_tenth_of_the_formula(
    width, layers, batch, length, integrator, drift, kept_bytes, monkeypatch
):
    for place in (chains, memory):
        monkeypatch.setattr(place, "KEPT_BYTES", kept_bytes)
    # Large models are converted to float64 in parts.
    monkeypatch.setattr(heat, "double_block", lambda device: 2**14)
    model = build(
        "GPTNeoXForCausalLM", vocab_size=600, hidden_size=width, num_hidden_layers=layers, intermediate_size=4 * width
    )
    ids = torch.randint(4, 600, (2 * batch, length))
    target = Target(causal_lm_loss, ids[:2], ids)
    config = replace(CONFIG, batch_size=batch, integrator=integrator, drift=drift)
    weights = sum(value.numel() for value in model.parameters())
    stated = chain_memory(
        config, num_weights=weights, num_sampling=len(ids), pass_bytes=pass_bytes(model, target, batch)
    )
    sampler = ChainSampler(model, target, config)
    sampler.run()
    peak = peak_of(sampler.run)
    assert stated.total - stated.module == pytest.approx(peak, rel=0.1)
