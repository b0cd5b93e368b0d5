import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError, LossContractError
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.probes.config import ProbeConfig
from stagewise.probes.llc_config import LLCConfig
from stagewise.probes.lost_samples import ObservedSet, kinds_seen, listed, lost_words, not_finite_rows
from stagewise.probes.prober import Prober
from stagewise.runs.open import open_run
from stagewise.runs.store import ProbeStore
from stagewise.sampling.data import ProbeData
from stagewise.sampling.trace import NOT_FINITE_HERE
from tests.probes.test_prober import SGLD

FULL = ProbeConfig(save_trace=True)


class Turning(nn.Sequential):
    """Its losses of some samples turn NaN or infinite when it is told so."""

    def __init__(self):
        super().__init__(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.register_buffer("bad", torch.zeros(10))


def squared(module, batch):
    x, y, numbers = batch
    return (module(x) - y).square().sum(dim=1) + module.bad[numbers]


def by_token(module, batch):
    x, y, numbers = batch
    losses = (module(x) - y).square() * torch.linspace(1, 2, 3) + module.bad[numbers][:, None]
    return losses, torch.arange(3) < 3 - (numbers[:, None] == 2).long()


@pytest.fixture
def case():
    torch.manual_seed(0)
    module = Turning()
    x, y = torch.randn(10, 3), torch.randn(10, 1)
    return module, (x, y, torch.arange(10)), (x + 1, y, torch.zeros(10, dtype=torch.long))


def cut(batch, gone):
    kept = torch.tensor([row for row in range(len(batch[0])) if row not in gone])
    return tuple(part[kept] for part in batch)


def watch(module, observed, sampling, *, loss_fn=squared, config=FULL, groups=None, told=None, **settings):
    return Prober(
        module,
        loss_fn,
        ProbeData(observed, sampling, groups or {}),
        sgld=SGLD,
        config=config,
        warn=(told if told is not None else []).append,
        **settings,
    )


def assert_same(left, right, names=None):
    assert set(left.data_vars) == set(right.data_vars)
    for name in names or left.data_vars:
        if name != "seconds":
            np.testing.assert_array_equal(left[name].values, right[name].values, err_msg=str(name))


@pytest.mark.parametrize("own_sampling", [True, False])
@pytest.mark.parametrize("loss_fn", [squared, by_token])
def test_influence_is_that_of_a_set_that_never_had_the_sample(case, loss_fn, own_sampling):
    module, observed, sampling = case
    module.bad[3], module.bad[7] = torch.nan, torch.inf
    groups = {"low": torch.arange(10) < 5, "odd": torch.arange(10) % 2 == 1}
    config = replace(FULL, chunk_size=4, damped_influence=True)
    drives = sampling if own_sampling else None
    told = []
    lacking = watch(module, observed, drives, loss_fn=loss_fn, config=config, groups=groups, told=told)
    never = watch(
        module,
        cut(observed, {3, 7}),
        drives,
        loss_fn=loss_fn,
        config=config,
        groups={name: mask[[0, 1, 2, 4, 5, 6, 8, 9]] for name, mask in groups.items()},
    )
    got, _ = lacking.probe(module, 5, lr_sum=0.1)
    want, _ = never.probe(module, 5, lr_sum=0.1)
    assert_same(got, want)
    assert np.isfinite(got["bif"]).all()
    assert got["sample"].values.tolist() == got["sample_j"].values.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert lacking.lost == (3, 7)
    (words,) = told
    assert "not finite (NaN and inf) before the first probe in 2 samples of the observed set: 3, 7;" in words
    assert "continues with the other 8" in words


def test_sample_that_turns_nan_in_mid_run_costs_that_sample_from_that_probe_on(case, tmp_path):
    module, observed, sampling = case
    told = []
    lacking = watch(module, observed, sampling, told=told)
    never = watch(module, cut(observed, {3}), sampling)
    store = ProbeStore(tmp_path / "influence.zarr")
    for step in (10, 20, 30):
        with torch.no_grad():
            module[2].bias += 0.1
        module.bad[3] = torch.nan if step > 10 else 0.0
        got, _ = lacking.probe(module, step, lr_sum=step / 100)
        want, _ = never.probe(module, step, lr_sum=step / 100)
        store.write(got)
        if step == 10:
            assert "sample" not in got.coords
            assert got.sizes["sample"] == 10
            continue
        assert got["sample"].values.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert_same(got, want, ["loss", "anchor_loss", "group_loss", "graddot"])
        # The draws of the reference were taken beside the sample: equal but for rounding.
        for name in ("bif", "group_bif", "shift", "signal"):
            np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-7, err_msg=name)
        assert got.attrs["reference_step"] == want.attrs["reference_step"] == step - 10
    assert len(told) == 1
    assert "(NaN) at step 20 in 1 sample of the observed set: 3; left out from here on; " in told[0]
    assert "influence continues with the other 9, and so do signal and TracIn; check these samples" in told[0]
    run = open_run(tmp_path)
    assert run["sample"].values.tolist() == list(range(10))
    assert np.isnan(run["shift"].sel(sample=3)).values.tolist() == [False, True, True]
    assert run["mask"].dtype == bool
    assert run["mask"].sel(sample=3).values.tolist() == [True, False, False]
    assert np.isfinite(run["group_bif"]).all()


def test_module_and_global_random_numbers_are_left_as_they_were(case):
    module, observed, sampling = case
    prober = watch(module, observed, sampling)
    module.bad[3] = torch.nan
    module.train()
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    prober.probe(module, 5)
    watch(module, observed, sampling)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num())


def test_fingerprint_is_of_what_was_given(case):
    module, observed, sampling = case
    groups = {"low": torch.arange(10) < 5, "high": torch.arange(10) > 4}
    whole = watch(module, observed, sampling, groups=groups).fingerprint()
    module.bad[3] = torch.nan
    lacking = watch(module, observed, sampling, groups=groups)
    assert lacking.fingerprint() == whole
    assert watch(module, cut(observed, {3}), sampling).fingerprint() != whole


def test_lost_samples_that_are_given_are_the_only_ones(case):
    module, observed, sampling = case
    module.bad[3] = torch.nan
    told = []
    prober = watch(module, observed, sampling, lost=[8], told=told)
    assert prober.lost == (8,)
    assert told == []
    result, _ = prober.probe(module, 5)  # which finds the other
    assert prober.lost == (3, 8)
    assert result["sample"].values.tolist() == [0, 1, 2, 4, 5, 6, 7, 9]


def test_a_probe_that_is_not_to_leave_out_tells_which_samples_it_was(case):
    module, observed, sampling = case
    prober = watch(module, observed, sampling)
    module.bad[3] = -torch.inf
    result, trace = prober.probe(module, 5, leave_out=False)
    assert result is None
    assert set(trace.dropped.values()) == {NOT_FINITE_HERE}
    assert prober.lost_in(trace) == (3,)
    assert prober.lost == ()


def test_where_all_losses_are_bad_it_is_the_model(case):
    module, observed, sampling = case
    prober = watch(module, observed, sampling)
    module.bad[:] = torch.nan
    with pytest.raises(LossContractError, match=r"not finite \(NaN\) in all 10 samples .*; look at the model"):
        watch(module, observed, None)
    result, trace = prober.probe(module, 5)
    assert result is None
    assert prober.lost_in(trace) == prober.lost == ()


def test_a_group_that_loses_everything_is_named_and_the_others_go_on(case, tmp_path):
    module, observed, sampling = case
    groups = {"three": torch.arange(10) == 3, "low": torch.arange(10) < 5, "high": torch.arange(10) > 4}
    told = []
    prober = watch(module, observed, sampling, groups=groups, told=told)
    first, _ = prober.probe(module, 10, lr_sum=0.1)
    module.bad[3] = torch.nan
    second, _ = prober.probe(module, 20, lr_sum=0.2)
    assert "; group 'three', without a loss now, too;" in told[0]
    assert prober.groups.names == ("low", "high")
    want = first["tracin"].values[1:, 1:] + 0.1 * second["graddot"].values
    np.testing.assert_allclose(second["tracin"].values, want, rtol=1e-6)
    store = ProbeStore(tmp_path / "influence.zarr")
    store.write(first)
    store.write(second)
    run = open_run(tmp_path)
    assert run["group"].values.tolist() == run["group_j"].values.tolist() == ["three", "low", "high"]
    np.testing.assert_array_equal(run["group_loss"].sel(step=20, group=["low", "high"]), second["group_loss"])
    started = []
    assert watch(module, observed, sampling, groups=groups, told=started).groups.names == ("low", "high")
    assert "group 'three'" in started[0]


def test_nothing_is_changed_where_too_little_would_be_left(case):
    module, observed, sampling = case
    groups = {"three": torch.arange(10) == 3, "four": torch.arange(10) == 4}
    prober = watch(module, observed, sampling, groups=groups)
    module.bad[3:5] = torch.nan
    with pytest.raises(InputError, match=r"samples 3, 4 .*nothing is left to observe of groups 'three', 'four'"):
        prober.probe(module, 10)
    assert prober.lost == ()
    module.bad[:] = 0
    assert prober.probe(module, 20)[0].sizes["sample"] == 10


def test_influence_between_tokens_keeps_the_numbers_of_its_samples(case):
    module, observed, sampling = case
    module.bad[3] = torch.nan
    config = replace(FULL, token_samples=[5, 3, 1])
    result, _ = watch(module, observed, sampling, loss_fn=by_token, config=config).probe(module, 5)
    assert result["chosen"].values.tolist() == result["chosen_j"].values.tolist() == [5, 1]
    want, _ = watch(
        module, cut(observed, {3}), sampling, loss_fn=by_token, config=replace(FULL, token_samples=[4, 1])
    ).probe(module, 5)
    np.testing.assert_array_equal(result["token_bif"].values, want["token_bif"].values)
    alone = replace(FULL, token_samples=[3])
    result, _ = watch(module, observed, sampling, loss_fn=by_token, config=alone).probe(module, 5)
    assert "token_bif" not in result
    with pytest.raises(InputError, match=r"token_samples=\[10\] of 10 observed samples"):
        watch(module, observed, sampling, loss_fn=by_token, config=replace(FULL, token_samples=[10]))


def test_own_chains_of_the_learning_coefficient_do_without_the_sample_too(case):
    module, observed, sampling = case
    config = ProbeConfig(llc=LLCConfig(num_chains=2, num_draws=5, lr=1e-3))
    prober = watch(module, observed, sampling, config=config)
    prober.probe(module, 10)
    module.bad[3] = torch.nan
    result, _ = prober.probe(module, 20)
    assert np.isfinite(float(result["llc"]))


def test_without_a_trainer_python_warns(case):
    module, observed, sampling = case
    module.bad[3] = torch.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Prober(module, squared, ProbeData(observed, sampling), sgld=SGLD, config=FULL)
    assert sum("of the observed set: 3;" in str(item.message) for item in caught) == 1


def test_losses_that_are_not_finite_are_found_by_row_and_told():
    losses = np.array([[0.0, 1.0], [np.nan, 0.0], [0.0, -np.inf]])
    assert not_finite_rows(losses).tolist() == [1, 2]
    assert not_finite_rows(losses[:, 0]).tolist() == [1]
    assert [kinds_seen(losses[rows]) for rows in ([0], [1], [2], [1, 2])] == ["", "NaN", "inf", "NaN and inf"]


def test_the_first_ten_samples_are_named_and_the_others_counted():
    assert listed(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listed(range(12, -1, -1)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"
    words = lost_words(range(13), ["a", "b"], seen="inf", num_left=2, step=7)
    assert "in 13 samples of the observed set: 0, " in words
    assert "groups 'a', 'b', without a loss now, too" in words


def test_a_set_without_samples_keeps_numbers_through_several_cuts():
    whole = ObservedSet(
        torch.arange(6), {"g": np.arange(6) > 1}, np.ones((6, 2), dtype=bool), np.arange(6), num_given=6
    )
    assert whole.is_whole
    assert whole.without([])[0] is whole
    left, gone = whole.without([4, 1])[0].without([0])
    assert (left.numbers.tolist(), left.batch.tolist(), gone) == ([2, 3, 5], [2, 3, 5], ())
    assert left.rows([5, 4, 2]).tolist() == [0, 2]
    assert left.rows_in_order([5, 4, 2]) == [2, 0]
    assert left.masks["g"].tolist() == [True] * 3


def test_part_of_features_is_what_they_would_be_of_that_part():
    rng = np.random.default_rng(0)
    masks = {"a": rng.random((5, 3)) < 0.7, "b": rng.random((5, 3)) < 0.7, "c": np.ones((5, 3), dtype=bool)}
    loss, rows = rng.random((2, 4, 5, 3)), [0, 2, 4]

    def features(losses, groups):
        sums = groups.sums(losses)
        return GroupDraws(3, (0, 1), losses.sum(axis=-1), sums, equilibrated=True)

    whole = features(loss, Groups(masks, np.ones((5, 3), dtype=bool)))
    kept = {name: masks[name][rows] for name in ("a", "c")}
    want = features(loss[:, :, rows], Groups(kept, np.ones((3, 3), dtype=bool)))
    got = whole.part(rows, [0, 2])
    np.testing.assert_array_equal(got.samples, want.samples)
    np.testing.assert_array_equal(got.groups, want.groups)
    assert (got.step, got.chains, got.equilibrated) == (3, (0, 1), True)
