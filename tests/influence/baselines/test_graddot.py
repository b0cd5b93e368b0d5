import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.baselines import gradient_dot
from stagewise.influence.bif import bif
from stagewise.influence.features import Features
from stagewise.influence.groups import Groups
from stagewise.losses import causal_lm_loss
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from tests.test_losses import tiny_lm


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
    got = gradient_dot(module, squared, (x, y), groups)
    for row, left in enumerate((range(5), range(3, 8))):
        for column, right in enumerate((range(5), range(3, 8))):
            want = np.mean([gram[i, j] for i in left for j in right if i != j])
            assert got[row, column] == pytest.approx(want, rel=1e-5)


def test_groups_of_one_sample_have_the_products_of_samples_and_none_with_themselves():
    module, (x, y) = case(5)
    rows = ((module(x) - y) * torch.cat([x, torch.ones(5, 1)], dim=1)).detach().double().numpy()
    groups = Groups({f"g{row}": np.arange(5) == row for row in range(5)}, np.ones(5, dtype=bool))
    with np.errstate(all="raise"):
        got = gradient_dot(module, squared, (x, y), groups)
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(got[off], (rows @ rows.T)[off], rtol=1e-4, atol=1e-6)
    assert np.isnan(np.diag(got)).all()


def test_tokens_of_a_language_model_equal_a_loop_over_token_gradients():
    model = tiny_lm("gpt2")
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
    got = gradient_dot(model, causal_lm_loss, ids, groups)
    for row, left in enumerate(masks.values()):
        for column, right in enumerate(masks.values()):
            dots = [
                float(gradient[tuple(a)] @ gradient[tuple(b)])
                for a in np.argwhere(left)
                for b in np.argwhere(right)
                if a[0] != b[0]
            ]
            assert got[row, column] == pytest.approx(np.mean(dots), rel=1e-4, abs=1e-7)


def test_only_the_parameters_that_a_pattern_matches_count():
    module, (x, y) = case()
    groups = Groups({}, np.ones(8, dtype=bool))
    rows = ((module(x) - y) * x).detach().double().numpy()
    gram = rows @ rows.T
    got = gradient_dot(module, squared, (x, y), groups, parameters=["weight"])
    assert got[0, 0] == pytest.approx((gram.sum() - np.trace(gram)) / 56, rel=1e-5)
    with pytest.raises(InputError, match="matches no trainable parameter"):
        gradient_dot(module, squared, (x, y), groups, parameters=["nothing"])


def test_module_keeps_its_gradients_and_flags():
    module, batch = case()
    squared(module, batch).sum().backward()
    before = module.weight.grad.clone()
    gradient_dot(module, squared, batch, Groups({}, np.ones(8, dtype=bool)))
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
    result = bif(Features.of(trace, groups), None, groups).sel(part="within")
    got, error = result["group_bif"].values, result["group_bif_se"].values
    want = -gradient_dot(module, squared, batch, groups) / localization
    assert (np.abs(got - want) < 4 * error).all()
    assert error.max() < 0.1 * np.abs(want).max()
