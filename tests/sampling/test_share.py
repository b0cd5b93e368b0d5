"""Chains shared by several processes, compared with one process that runs them all."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.token_bif_sums import TokenSums
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sampling.target import Target
from stagewise.sampling.trace import merge_traces

CONFIG = SGLDConfig(
    lr=1e-2,
    nbeta=5.0,
    localization=10.0,
    num_chains=5,
    num_draws=4,
    num_burnin_steps=1,
    batch_size=3,
    engine=EngineName.sequential,
)

NOISE_ALONE = replace(CONFIG, nbeta=0.0)
"""Losses rise: no chain goes on training."""


def squared(module, batch):
    return (module(batch[0]) - batch[1]) ** 2 / 2


def summed(losses):
    return losses.sum().reshape(1)


def sampler(config=CONFIG, **more):
    generator = torch.Generator().manual_seed(0)
    batch = (torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator))
    module = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return ChainSampler(module, Target(squared, batch), config, **more)


def shares(size):
    return [ChainShare(rank, size, lambda mine: [mine] * size) for rank in range(size)]


def shared(size, config=CONFIG, **more):
    numbers = [share.numbers(config.num_chains) for share in shares(size)]
    return merge_traces([sampler(config, **more).run(7, numbers=them) for them in numbers])


def check_same(left, right, *, exact=True):
    assert (left.chains, left.dropped, left.step, left.engine) == (
        right.chains,
        right.dropped,
        right.step,
        right.engine,
    )
    for name in ("loss", "distance", "gradient_rms", "anchor_loss", "mask", "reduced", "minibatch_noise"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6, err_msg=name)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_chain_runs_exactly_once_for_any_number_of_processes(size):
    numbers = [number for share in shares(size) for number in share.numbers(5)]
    assert sorted(numbers) == [0, 1, 2, 3, 4]
    assert [share.is_first for share in shares(size)] == [True] + [False] * (size - 1)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("reduce", [None, summed])
def test_shared_chains_equal_those_of_one_process_bit_for_bit(size, reduce):
    check_same(shared(size, reduce=reduce), sampler(reduce=reduce).run(7))


def test_shared_batched_chains_equal_those_of_one_batch_up_to_rounding():
    config = replace(CONFIG, engine=EngineName.batched)
    check_same(shared(2, config), sampler(config).run(7), exact=False)


@pytest.mark.parametrize("drift", ["plain", "control_variate", "tilted"])
@pytest.mark.parametrize("integrator", ["leimkuhler_matthews", "euler"])
def test_shared_chains_agree_with_each_drift_and_integrator(drift, integrator):
    config = replace(CONFIG, drift=drift, integrator=integrator)
    check_same(shared(3, config), sampler(config).run(7))


@pytest.mark.parametrize("common_noise", [True, False])
def test_shared_chains_agree_with_and_without_common_noise(common_noise):
    config = replace(CONFIG, common_noise=common_noise)
    check_same(shared(2, config), sampler(config).run(7))


def test_a_failing_chain_is_dropped_by_number_in_any_process():
    rises = sampler(NOISE_ALONE).run(7)
    worst = (rises.mean_loss() - rises.mean_anchor_loss()).max(axis=1)
    config = replace(NOISE_ALONE, max_loss_rise=float(np.sort(worst)[-2:].mean()))
    alone = sampler(config).run(7)
    assert list(alone.dropped) == [int(np.argmax(worst))]
    check_same(shared(3, config), alone)


def test_a_process_that_lost_all_chains_does_not_affect_the_others():
    rises = sampler(NOISE_ALONE).run(7)
    worst = (rises.mean_loss() - rises.mean_anchor_loss()).max(axis=1)
    config = replace(NOISE_ALONE, max_loss_rise=float(np.sort(worst)[-2:].mean()))
    check_same(shared(5, config, reduce=summed), sampler(config, reduce=summed).run(7))
    wild = shared(5, replace(CONFIG, lr=0.1, nbeta=1e9))
    assert (wild.chains, list(wild.dropped)) == ((), [0, 1, 2, 3, 4])


def test_heat_is_that_of_the_first_kept_chain_in_any_process():
    """Chain 0 is lost: the others must still have a measured heat."""

    def rises(seed):
        found = sampler(replace(CONFIG, drift="plain", seed=seed)).run(7)
        return (found.mean_loss() - found.mean_anchor_loss()).max(axis=1)

    seed = next(seed for seed in range(40) if rises(seed).argmax() == 0)
    limit = float(np.sort(rises(seed))[-2:].mean())
    config = replace(CONFIG, drift="plain", seed=seed, max_loss_rise=limit)
    alone = sampler(config).run(7)
    assert list(alone.dropped) == [0]
    assert alone.minibatch_noise == sampler(config).run(7, numbers=[1]).minibatch_noise > 0
    for size in (2, 3, 5):
        check_same(shared(size, config), alone)


def test_minibatches_do_not_depend_on_the_number_of_chains_in_a_process():
    """Gradients of three minibatches are kept, since the probe makes ten steps; each share makes two."""
    config = replace(CONFIG, drift="tilted", num_chains=5, num_draws=2, num_burnin_steps=0, num_steps_bw_draws=1)
    check_same(shared(5, config), sampler(config).run(7))


def test_a_process_without_chains_contributes_nothing():
    idle = sampler().run(7, numbers=range(0))
    assert (idle.chains, idle.dropped) == ((), {})
    check_same(merge_traces([sampler().run(7), idle]), sampler().run(7))


def test_a_process_without_chains_adopts_the_chosen_engine():
    first, other = (sampler(replace(CONFIG, engine=EngineName.auto)) for _ in range(2))
    chosen = first.choose_engine(3)
    assert chosen == first.engine is not None
    other.settle_engine(None)
    assert other.engine is None
    other.settle_engine(chosen)
    assert other.run(7).engine == chosen


def test_shared_token_sums_equal_those_of_one_process():
    alone = TokenSums([1, 3])
    sampler().run(7, on_draw=alone)
    parts = [TokenSums([1, 3]) for _ in range(2)]
    for share, sums in zip(shares(2), parts, strict=True):
        sampler().run(7, on_draw=sums, numbers=share.numbers(5))
    for sums in (copy.deepcopy(parts[1]), TokenSums([1, 3])):
        sums.merge(parts)
        for name, value in alone.influence().items():
            np.testing.assert_array_equal(value, sums.influence()[name])


def test_sums_of_other_rows_are_not_merged():
    sums, other = TokenSums([1]), TokenSums([2])
    sampler().run(7, on_draw=other)
    with pytest.raises(InputError, match=r"samples \[2\].*expected \[1\]"):
        sums.merge([other])


def test_more_processes_than_chains_are_refused():
    with pytest.raises(InputError, match="num_chains=5; expected at least one for each of 6 processes"):
        shares(6)[0].numbers(5)
    assert [len(replace(share, may_idle=True).numbers(5)) for share in shares(6)] == [1, 1, 1, 1, 1, 0]
    with pytest.raises(InputError, match="rank=2; expected 0 to 1"):
        ChainShare(2, 2)


def test_a_single_process_has_all_chains_and_gathers_its_own_results():
    assert list(ALONE.numbers(3)) == [0, 1, 2]
    assert ALONE.gather("mine") == ["mine"]
    assert ALONE.collect(lambda: "mine") == ["mine"]
    assert ALONE.decide(lambda: "mine") == "mine"
