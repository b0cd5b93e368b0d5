import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.baselines import gradient_dot
from stagewise.influence.baselines.folds import assign_folds
from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.losses.contract import causal_lm_loss
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.target import Target
from tests.lm_families import tiny_gpt2


def squared(module, batch):
    return ((module(batch[0]) - batch[1]) ** 2).sum(1) / 2


def case(num=8):
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(3, 1)
    return module, (torch.randn(num, 3, generator=generator), torch.randn(num, 1, generator=generator))


def test_linear_regression_has_a_closed_form():
    module, (x, y) = case()
    groups = Groups({"a": np.arange(8) < 5, "b": np.arange(8) > 2}, np.ones(8, dtype=bool))
    rows = ((module(x) - y) * torch.cat([x, torch.ones(8, 1)], dim=1)).detach().double().numpy()
    gram = rows @ rows.T
    got = gradient_dot(module, Target(squared, (x, y)), groups)
    for row, left in enumerate((range(5), range(3, 8))):
        for column, right in enumerate((range(5), range(3, 8))):
            want = np.mean([gram[i, j] for i in left for j in right if i != j])
            assert got[row, column] == pytest.approx(want, rel=1e-5)


def test_groups_of_one_sample_have_the_products_of_samples_and_none_with_themselves():
    module, (x, y) = case(5)
    rows = ((module(x) - y) * torch.cat([x, torch.ones(5, 1)], dim=1)).detach().double().numpy()
    groups = Groups({f"g{row}": np.arange(5) == row for row in range(5)}, np.ones(5, dtype=bool))
    with np.errstate(all="raise"):
        got = gradient_dot(module, Target(squared, (x, y)), groups)
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(got[off], (rows @ rows.T)[off], rtol=1e-4, atol=1e-6)
    assert np.isnan(np.diag(got)).all()


def test_tokens_of_a_language_model_equal_a_loop_over_token_gradients():
    model = tiny_gpt2()
    ids = torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(1))
    masks = {"early": np.array([[1, 1, 0, 0]] * 3, bool), "some": np.array([[0, 1, 1, 0], [0] * 4, [1, 0, 0, 1]], bool)}
    groups = Groups(masks, np.ones((3, 4), dtype=bool))
    parameters = list(model.parameters())
    gradient = {}
    for i in range(3):
        for k in range(4):
            loss = causal_lm_loss(model, ids[i : i + 1])[0][0, k]
            parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            gradient[i, k] = torch.cat([part.flatten() for part in parts]).double()
    got = gradient_dot(model, Target(causal_lm_loss, ids), groups)
    for row, left in enumerate(masks.values()):
        for column, right in enumerate(masks.values()):
            dots = [
                float(gradient[tuple(a)] @ gradient[tuple(b)])
                for a in np.argwhere(left)
                for b in np.argwhere(right)
                if a[0] != b[0]
            ]
            assert got[row, column] == pytest.approx(np.mean(dots), rel=1e-4, abs=1e-7)


def tokens(seed=2):
    """Two layers, losses [sample, token], eight samples; groups that overlap, lie in few samples, or in one."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x, y = (torch.randn(8, size, generator=generator, dtype=torch.float64) for size in (3, 5))
    chosen = torch.rand(3, 8, 5, generator=generator).numpy() < 0.4
    masks = dict(zip("abc", chosen, strict=True))
    masks["b"] = masks["b"] & (np.arange(8) < 3)[:, None]
    masks["one"], masks["other"] = ((np.arange(8) == row)[:, None].repeat(5, axis=1) for row in (4, 5))
    return module, (x, y), Groups(masks, np.ones((8, 5), dtype=bool))


def token_losses(module, batch):
    return (module(batch[0]) - batch[1]) ** 2 / 2


def plain_double_loop(module, batch, groups, folds):
    """Returns the sum over all pairs of losses in different folds, with one gradient per loss."""
    parameters = list(module.parameters())
    rows = {}
    for place in np.argwhere(groups.masks.any(axis=0)):
        sample, token = place.tolist()
        loss = token_losses(module, batch)[sample, token]
        rows[sample, token] = torch.cat([item.flatten() for item in torch.autograd.grad(loss, parameters)]).numpy()
    found = np.full((len(groups), len(groups)), np.nan)
    for row, column in np.ndindex(*found.shape):
        dots = [
            rows[tuple(i)] @ rows[tuple(j)]
            for i in np.argwhere(groups.masks[row]).tolist()
            for j in np.argwhere(groups.masks[column]).tolist()
            if folds[i[0]] != folds[j[0]]
        ]
        if dots:
            found[row, column] = np.mean(dots)
    return found


@pytest.mark.parametrize("num_folds", [None, 2, 3, 4, 8])
@pytest.mark.parametrize(("chunk_size", "block_size"), [(None, None), (2, None), (None, 7), (1, 1)])
def test_folds_give_the_plain_double_loop_over_pairs_in_different_folds(num_folds, chunk_size, block_size):
    module, batch, groups = tokens()
    folds = assign_folds(groups.counts, num_folds)
    target = Target(token_losses, batch, chunk_size=chunk_size)
    got = gradient_dot(module, target, groups, num_folds=num_folds, block_size=block_size)
    np.testing.assert_allclose(got, plain_double_loop(module, batch, groups, folds), rtol=1e-10)
    assert np.array_equal(np.isfinite(got), groups.has_pairs)


def test_one_fold_per_sample_gives_all_pairs_in_different_samples():
    module, batch, groups = tokens()
    want = plain_double_loop(module, batch, groups, np.arange(8))
    for num_folds in (None, 8, 50):
        got = gradient_dot(module, Target(token_losses, batch), groups, num_folds=num_folds)
        np.testing.assert_allclose(got, want, rtol=1e-10)
    assert np.isnan(got[3, 3])
    assert np.isfinite(got[3, 4])


def test_samples_without_a_group_are_not_evaluated():
    module, (x, y), _ = tokens()
    masks = {"a": (np.arange(8) < 4)[:, None].repeat(5, axis=1)}
    x[5] = float("nan")
    got = gradient_dot(module, Target(token_losses, (x, y)), Groups(masks, np.ones((8, 5), dtype=bool)), num_folds=2)
    assert np.isfinite(got).all()


def test_half_precision_gradients_are_summed_in_single_precision():
    module, (x, y), groups = tokens()
    want = gradient_dot(module, Target(token_losses, (x, y)), groups, num_folds=4)
    half = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5)).bfloat16()
    half.load_state_dict(module.state_dict())
    half[0].float()  # a block is of one type

    def losses(module, batch):
        hidden = torch.tanh(module[0](batch[0].float()))
        return (module[2](hidden.bfloat16()).float() - batch[1].float()) ** 2 / 2

    got = gradient_dot(half, Target(losses, (x, y)), groups, num_folds=4)
    there = np.isfinite(want)
    np.testing.assert_allclose(got[there], want[there], rtol=0.1, atol=0.05)


def test_each_fold_and_group_takes_one_pass(monkeypatch):
    module, batch, groups = tokens()
    calls = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs))
    gradient_dot(module, Target(token_losses, batch), groups, num_folds=2)
    few = len(calls)
    gradient_dot(module, Target(token_losses, batch), groups)
    assert few <= 2 * len(groups)
    assert len(calls) - few == int((groups.counts > 0).sum())


@pytest.mark.parametrize("bad", [{"num_folds": 1}, {"block_size": 0}])
def test_bad_sizes_are_refused(bad):
    module, batch, groups = tokens()
    with pytest.raises(InputError, match=r"got .*; expected "):
        gradient_dot(module, Target(token_losses, batch), groups, **bad)


def test_only_parameters_matched_by_a_pattern_count():
    module, (x, y) = case()
    groups = Groups({}, np.ones(8, dtype=bool))
    rows = ((module(x) - y) * x).detach().double().numpy()
    gram = rows @ rows.T
    got = gradient_dot(module, Target(squared, (x, y), selection=["weight"]), groups)
    assert got[0, 0] == pytest.approx((gram.sum() - np.trace(gram)) / 56, rel=1e-5)
    with pytest.raises(InputError, match="matches no trainable parameter"):
        gradient_dot(module, Target(squared, (x, y), selection=["nothing"]), groups)


def test_module_keeps_its_gradients_and_flags():
    module, batch = case()
    squared(module, batch).sum().backward()
    before = module.weight.grad.clone()
    gradient_dot(module, Target(squared, batch), Groups({}, np.ones(8, dtype=bool)))
    assert torch.equal(module.weight.grad, before)
    assert module.training


@pytest.mark.slow
def test_bif_tends_to_minus_the_dot_product_over_the_localization():
    """At strong localization and nbeta = 0 the chain is N(w*, 1/g): Cov(l_i, l_j) -> grad . grad / g."""
    module, batch = case(20)
    module, batch = module.double(), (batch[0].double(), batch[1].double())
    masks = {"a": np.arange(20) < 10, "b": np.arange(20) >= 10}
    groups = Groups(masks, np.ones(20, dtype=bool))
    localization = 1e5
    config = SGLDConfig(
        lr=1.5 / localization, nbeta=0.0, localization=localization, num_chains=8, num_draws=1500, num_burnin_steps=0
    )
    trace = run_chains(module, squared, observed=batch, sampling=batch, config=config)
    result = bif(GroupDraws.of(trace, groups), None, groups).sel(part="within")
    got, error = result["group_bif"].values, result["group_bif_se"].values
    want = -gradient_dot(module, Target(squared, batch), groups) / localization
    assert (np.abs(got - want) < 4 * error).all()
    assert error.max() < 0.1 * np.abs(want).max()
