"""Noise and minibatches: their order, and their independence of other chains and settings."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stagewise.sampling import streams as streams_file
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.streams import Streams, chain_streams, partition
from tests.sampling.test_chains import squared

CONFIG = SGLDConfig(lr=1e-3, localization=10.0, num_draws=40, num_burnin_steps=1, batch_size=4, seed=5)


def streams(config=CONFIG, chains=(0, 1, 2), step=0, weights=7, size=10, choices=None):
    return Streams(config, chains, step, torch.zeros(weights), size, choices)


@pytest.mark.parametrize("block", [1, 2, 16])
def test_each_noise_is_used_twice_and_is_the_next_normal_of_its_chain(monkeypatch, block):
    """Also across blocks: large models draw one step at a time."""
    monkeypatch.setattr(streams_file, "_BLOCK_NUMBERS", 7 * block)
    found = streams()
    assert found._block_steps == block
    start = found.noise().clone()
    pairs = [tuple(two_noise.clone() for two_noise in found.two_noises()) for _ in range(CONFIG.num_steps)]
    for (_, following), (last, _) in pairwise(pairs):
        assert torch.equal(following, last)
    numbers = torch.stack([start, pairs[0][0], *(pair[1] for pair in pairs)])
    assert len(numbers) == CONFIG.num_steps + 2
    for chain in range(3):
        generator, _ = chain_streams(CONFIG, chain, 0, torch.device("cpu"))
        want = []
        while len(want) < len(numbers):
            want += torch.empty(min(block, len(numbers) - len(want)), 7).normal_(generator=generator)
        torch.testing.assert_close(numbers[:, chain], torch.stack(want), rtol=0, atol=0)


@pytest.mark.parametrize("block", [1, 16])
def test_reading_the_upcoming_noise_changes_nothing(monkeypatch, block):
    monkeypatch.setattr(streams_file, "_BLOCK_NUMBERS", 7 * block)
    one, other = streams(), streams()
    assert torch.equal(one.noise().clone(), other.noise().clone())
    seen = one.upcoming().clone()
    assert torch.equal(one.upcoming(), seen)
    for number in range(20):
        got, want = ([two_noise.clone() for two_noise in found.two_noises()] for found in (one, other))
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])
        assert torch.equal(got[0], seen) == (number == 0)


@pytest.mark.parametrize("kind", ["anew", "partition"])
def test_streams_of_a_chain_do_not_depend_on_the_other_chains(kind):
    choices = partition(CONFIG, 10) if kind == "partition" else None
    together, alone = streams(choices=choices), streams(chains=[1], choices=choices)
    for _ in range(20):
        assert torch.equal(together.noise()[1], alone.noise()[0])
        many, one = together.minibatches(), alone.minibatches()
        assert torch.equal(many.rows[1], one.rows[0])
        assert (many.numbers is None) == (one.numbers is None) == (kind == "anew")


def test_minibatches_of_a_partition_match_their_numbers_and_all_occur():
    choices = partition(CONFIG, 10)
    found = streams(choices=choices)
    seen = set()
    for _ in range(60):
        rows, numbers = found.minibatches()
        assert torch.equal(rows, choices[numbers])
        seen |= set(numbers.tolist())
    assert seen == set(range(len(choices)))


def test_fresh_minibatches_contain_no_sample_twice():
    found = streams()
    drawn = torch.cat([found.minibatches().rows for _ in range(50)])
    assert drawn.shape == (150, 4)
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    assert set(drawn.flatten().tolist()) == set(range(10))


def test_whole_batches_need_no_draw():
    assert streams(size=4).minibatches() == (None, None)
    assert streams(size=3, choices=torch.zeros(1, 3, dtype=torch.long)).minibatches() == (None, None)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 3))
def test_a_partition_contains_each_sample_and_as_few_as_possible_twice(size, batch_size, seed):
    found = partition(replace(CONFIG, batch_size=batch_size, seed=seed), size)
    number, width = found.shape
    counts = np.bincount(found.flatten().numpy(), minlength=size)
    assert counts.shape == (size,)
    assert set(counts) <= {1, 2}
    assert counts.sum() - size < number
    assert width <= batch_size
    assert (number - 1) * batch_size < size <= number * width
    # A sample that comes twice never does in one minibatch.
    assert all(len(set(row)) == width for row in found.tolist())


def test_minibatch_noise_of_partitions_equals_that_of_fresh_minibatches_on_average():
    """Variance of a minibatch mean, drawn without replacement: S^2 / b (1 - b / n)."""
    values = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for seed in range(400):
        means = values[partition(replace(CONFIG, batch_size=5, seed=seed), 40)].mean(dim=1)
        assert float(means.mean()) == pytest.approx(float(values.mean()), abs=1e-12)
        found.append(float(means.var(correction=0)))
    # One partition of eight is off by a half; 400 by a fortieth.
    assert np.mean(found) == pytest.approx(float(values.var()) / 5 * (1 - 5 / 40), rel=0.1)
    assert 0.3 < np.std(found) / np.mean(found) < 0.7


def test_a_partition_depends_on_its_seed_alone():
    assert torch.equal(partition(CONFIG, 50), partition(replace(CONFIG, common_noise=False, lr=1e-4), 50))
    assert not torch.equal(partition(CONFIG, 50), partition(replace(CONFIG, seed=6), 50))
    torch.manual_seed(9)
    assert torch.equal(partition(CONFIG, 50), partition(CONFIG, 50))


@pytest.mark.parametrize("drift", ["plain", "control_variate", "tilted"])
def test_chains_without_loss_draw_the_same_noise_as_those_with_it(drift):
    """With a tiny nbeta and the same seed, draws are almost those without the loss."""
    module = nn.Linear(5, 1)
    batch = (torch.randn(10, 5), torch.randn(10, 1))
    config = SGLDConfig(
        lr=0.1, nbeta=0.0, localization=10.0, num_chains=2, num_draws=5, batch_size=4, drift=drift, engine="sequential"
    )
    control, coupled, apart = (
        run_chains(module, squared, observed=batch, sampling=batch, config=item).loss
        for item in (config, replace(config, nbeta=1e-3), replace(config, nbeta=1e-3, seed=1))
    )
    np.testing.assert_allclose(coupled, control, rtol=1e-2, atol=1e-3)
    assert not np.array_equal(coupled, control)
    assert np.abs(apart - control).max() > 0.1


def test_streams_follow_the_training_step_only_without_common_noise():
    for common in (True, False):
        config = replace(CONFIG, common_noise=common)
        one, other = streams(config, step=1), streams(config, step=2)
        assert torch.equal(one.noise(), other.noise()) == common
        assert torch.equal(one.minibatches().rows, other.minibatches().rows) == common
