import gc

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.group_draws import GroupDraws, Reducer
from stagewise.influence.groups import Groups
from stagewise.influence.sign import SIGN
from stagewise.influence.split import Centering, split
from stagewise.influence.token_bif import token_bif
from stagewise.influence.token_bif_sums import TOKEN_PARTS, TokenSums
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.target import Target
from tests.influence.test_token_bif import losses

CHAINS, DRAWS = 4, 21


def trace(level=3.0, size=1.0, shape=(CHAINS, DRAWS, 3, 4)):
    return losses(np.float32, level, size, shape)


def fed(loss, samples=None, in_turn=False):
    """Sums of all draws, chain after chain or one draw of each in turn."""
    sums = TokenSums(samples)
    order = np.ndindex(loss.shape[1::-1]) if in_turn else ((draw, chain) for chain, draw in np.ndindex(loss.shape[:2]))
    for draw, chain in order:
        sums(chain, torch.from_numpy(loss[chain, draw]))
    return sums


def flat(variable, part):
    values = variable.sel(token_part=part).values
    return values.reshape(values.shape[0] * values.shape[1], -1)


@pytest.mark.parametrize(("level", "size"), [(3.0, 1.0), (10.0, 1e-3), (1e-4, 1e-5)])
def test_running_sums_equal_those_of_a_trace_to_float32(level, size):
    loss = trace(level, size)
    got = fed(loss).influence()
    exact = loss.astype(np.float64)
    pooled = token_bif(exact, centering=Centering.pooled)
    deviation = np.sqrt(-np.diag(pooled.values.reshape(12, 12)))
    for part, want in (("within", token_bif(exact)), ("total", pooled)):
        error = np.abs(flat(got["token_bif"], part) - want.values.reshape(12, 12)) / deviation / deviation[:, None]
        assert error.max() < 2e-7
    want = token_bif(loss, centering=Centering.pooled, correlate=True).values
    np.testing.assert_allclose(got["token_bif_correlation"].sel(token_part="total"), want, atol=1e-6)


def loop(loss, kept):
    """Covariance and correlation ``[2, part, loss, loss]`` of some chains, pair by pair, from all their draws."""
    some = loss[kept].astype(np.float64).reshape(len(kept), loss.shape[1], -1)
    size = some.shape[2]
    result = np.zeros((2, 3, size, size))
    for i, j in np.ndindex(size, size):
        own = np.mean([np.mean(x[:, i] * x[:, j]) - x[:, i].mean() * x[:, j].mean() for x in some])
        pooled = np.mean(some[..., i] * some[..., j]) - some[..., i].mean() * some[..., j].mean()
        spread = some[..., i].std() * some[..., j].std()
        for part, value in enumerate((own, pooled - own, pooled)):
            result[:, part, i, j] = -value, -value / spread
    return result


def test_all_parts_and_their_jackknife_equal_a_loop_that_leaves_one_chain_out():
    loss = trace()
    got = fed(loss).influence()
    want = loop(loss, list(range(CHAINS)))
    left_out = np.array([loop(loss, [row for row in range(CHAINS) if row != skip]) for skip in range(CHAINS)])
    errors = np.sqrt((CHAINS - 1) / CHAINS * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))
    for index, name in enumerate(("token_bif", "token_bif_correlation")):
        for part, part_name in enumerate(TOKEN_PARTS):
            np.testing.assert_allclose(flat(got[name], part_name), want[index, part], rtol=1e-5, atol=1e-6)
            error = flat(got[f"{name}_se"], part_name)
            np.testing.assert_allclose(error, errors[index, part], rtol=1e-5, atol=1e-6)
    assert errors[0, 2].min() > 1e-3


def test_parts_equal_the_split_over_the_kept_chains():
    loss = trace()
    got = fed(loss).influence([2, 0])
    draws = loss[[0, 2]].astype(np.float64).reshape(2, DRAWS, 12)
    parts = split(draws, centering=Centering.chain).parts()
    for part in TOKEN_PARTS:
        np.testing.assert_allclose(flat(got["token_bif"], part), -parts[part], atol=1e-6)


def test_chains_may_be_interleaved_or_sequential():
    loss = trace()
    one, other = fed(loss).influence(), fed(loss, in_turn=True).influence()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_chosen_sequences_are_the_given_rows_in_order():
    loss = trace()
    got, whole = fed(loss, samples=[2, 0]).influence(), fed(loss).influence()
    assert got["chosen"].values.tolist() == got["chosen_j"].values.tolist() == [2, 0]
    np.testing.assert_allclose(got["token_bif"], whole["token_bif"].sel(chosen=[2, 0], chosen_j=[2, 0]), rtol=1e-6)


def test_intermediate_results_change_nothing():
    """Also while draws are pending for the next product."""
    loss = trace()
    sums = TokenSums()
    for draw, chain in np.ndindex(DRAWS, CHAINS):
        sums(chain, torch.from_numpy(loss[chain, draw]))
        if draw in (4, 5, 17) and chain == CHAINS - 1:
            np.testing.assert_allclose(
                sums.influence()["token_bif"], fed(loss[:, : draw + 1]).influence()["token_bif"], rtol=1e-5, atol=1e-7
            )
    np.testing.assert_allclose(sums.influence()["token_bif"], fed(loss).influence()["token_bif"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_masked_or_constant_losses_have_zero_influence_and_error(value):
    loss = trace()
    loss[:, :, 1, 2] = value
    got = fed(loss).influence()
    for name in got:
        assert not got[name].sel(chosen=1, token=2).values.any()
        assert np.isfinite(got[name]).all()


def test_one_chain_has_no_error_and_no_drift():
    got = fed(trace()[:1]).influence()
    assert np.isnan(got["token_bif_se"]).all()
    assert not got["token_bif"].sel(token_part="drift").values.any()
    assert (got.attrs["sign"], got["token_bif"].attrs["units"]) == (SIGN, "nats^2")
    assert got["token_bif_correlation_se"].attrs["units"] == "1"


def test_a_diverged_chain_does_not_affect_others_and_is_refused():
    loss = trace()
    loss[0, 3:] = np.nan
    sums = fed(loss)
    np.testing.assert_array_equal(sums.influence([1, 2, 3])["token_bif"], fed(loss[1:]).influence()["token_bif"])
    with pytest.raises(InputError, match="not finite"):
        sums.influence()


@pytest.mark.parametrize("samples", [[], [1, 1], [-1]])
def test_invalid_samples_are_refused(samples):
    with pytest.raises(InputError, match=r"got samples=.*; expected"):
        TokenSums(samples)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (3, 5)])
def test_draws_that_do_not_fit_are_refused(shape):
    sums = TokenSums([2])
    sums(0, torch.zeros(3, 4))
    with pytest.raises(InputError, match=r"got losses of shape .*; expected"):
        sums(0, torch.zeros(shape))


def test_chains_with_no_or_fewer_draws_are_refused():
    with pytest.raises(InputError, match="draws from chains"):
        TokenSums().influence()
    sums = fed(trace())
    with pytest.raises(InputError, match="draws from chains"):
        sums.influence([0, 9])
    sums(1, torch.zeros(3, 4))
    with pytest.raises(InputError, match="draws from chains"):
        sums.influence()


@pytest.mark.parametrize("engine", ["sequential", "batched"])
@pytest.mark.parametrize("reduced", [False, True])
def test_chains_feed_the_sums_in_addition_to_their_records(engine, reduced):
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(3, 4)
    mask = torch.rand(5, 4, generator=generator) < 0.8
    batch = (torch.randn(5, 3, generator=generator), torch.randn(5, 4, generator=generator), mask)

    def tokens(module, batch):
        return (module(batch[0]) - batch[1]).square(), batch[2]

    groups = Groups({}, mask.numpy())
    config = SGLDConfig(
        lr=1e-3,
        nbeta=30,
        localization=50,
        num_chains=3,
        num_draws=20,
        batch_size=3,
        engine=engine,
        num_burnin_steps=2,
        num_steps_bw_draws=1,
        drift="plain",
    )
    target = Target(tokens, batch)
    kept = ChainSampler(module, target, config).run(step=4)
    sums = TokenSums([1, 4])
    sampler = ChainSampler(module, target, config, reduce=Reducer(groups) if reduced else None)
    trace = sampler.run(step=4, on_draw=sums)
    np.testing.assert_array_equal(GroupDraws.of(trace, groups).groups, GroupDraws.of(kept, groups).groups)
    got = sums.influence(trace.chains)["token_bif"]
    loss = kept.loss[:, :, [1, 4]].astype(np.float64)
    for part, centering in (("within", Centering.chain), ("total", Centering.pooled)):
        want = token_bif(loss, centering=centering).values
        np.testing.assert_allclose(got.sel(token_part=part), want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def held():
    """Returns the bytes of all existing tensors."""
    gc.collect()
    stores = {
        get_object.untyped_storage().data_ptr(): get_object.untyped_storage().nbytes()
        for get_object in gc.get_objects()
        if type(get_object) is torch.Tensor and get_object.layout is torch.strided
    }
    return sum(stores.values())


def test_memory_depends_on_chains_and_pairs_but_not_on_draws():
    draw = torch.rand(2, 100)
    before = held()
    sums = TokenSums()
    for chain, _ in np.ndindex(2, 500):
        sums(chain, draw)
    pairs = 8 * 2 * 200**2
    assert pairs <= held() - before < 1.15 * pairs  # a trace would take 800,000 bytes more
    assert sums.influence().sizes["token"] == 100
