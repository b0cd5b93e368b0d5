from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import cg
from torch import nn
from torch.func import functional_call, hessian

from stagewise.errors import InputError
from stagewise.influence.baselines import damped, damped_influence
from stagewise.influence.baselines.damped import solve_by_products, solve_dense
from stagewise.influence.groups import Groups
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.target import Target
from tests.lm_families import tiny_gpt2

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(12, 3, generator=GENERATOR, dtype=torch.float64)
Y = torch.randn(12, 1, generator=GENERATOR, dtype=torch.float64)
POSTERIOR = LocalPosterior(nbeta=40.0, localization=12.0)
DENSE, BY_PRODUCTS = {"dense_limit": 1000}, {"dense_limit": 0, "rtol": 1e-10}


def squared(module, batch):
    return ((module(batch[0]) - batch[1]) ** 2).sum(1) / 2


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 1, bias=False).double()


def closed_form(module, localization, nbeta):
    """Linear regression: H = X^T X / n, g = (w x - y) x."""
    gradients = ((X @ module.weight.T - Y) * X).detach().numpy()
    return -gradients @ np.linalg.solve((X.T @ X).numpy() / 12 + localization / nbeta * np.eye(3), gradients.T)


@pytest.mark.parametrize("way", [DENSE, BY_PRODUCTS])
@pytest.mark.parametrize(("localization", "nbeta"), [(12.0, 40.0), (0.0, 7.0), (300.0, 2.0)])
def test_linear_regression_has_a_closed_form(way, localization, nbeta):
    module = linear()
    got = damped_influence(module, Target(squared, (X, Y)), None, posterior=LocalPosterior(nbeta, localization), **way)
    np.testing.assert_allclose(got, closed_form(module, localization, nbeta), rtol=1e-7)
    assert (np.diag(got) < 0).all()  # more weight on a sample lowers its own loss: negative = helpful


@pytest.mark.parametrize("way", [DENSE, BY_PRODUCTS])
def test_weight_decay_of_the_target_is_part_of_its_curvature(way):
    """-nbeta Cov of the Gaussian exp(-nbeta (L + decay |w|^2 / 2) - (g / 2) |w - w*|^2), losses being linear."""
    module = linear()
    precision = 40.0 * ((X.T @ X).numpy() / 12 + 0.8 * np.eye(3)) + 12.0 * np.eye(3)
    gradients = ((X @ module.weight.T - Y) * X).detach().numpy()
    want = -40.0 * gradients @ np.linalg.inv(precision) @ gradients.T
    got = damped_influence(module, Target(squared, (X, Y)), None, posterior=replace(POSTERIOR, weight_decay=0.8), **way)
    np.testing.assert_allclose(got, want, rtol=1e-7)
    without = damped_influence(module, Target(squared, (X, Y)), None, posterior=POSTERIOR, **way)
    assert (np.diag(without) < np.diag(want)).all()  # too large without it


def test_group_influence_is_the_mean_over_pairs_of_different_samples():
    module = linear()
    matrix = closed_form(module, 12.0, 40.0)
    groups = Groups({"a": np.arange(12) < 5, "b": np.arange(12) > 2}, np.ones(12, dtype=bool))
    got = damped_influence(module, Target(squared, (X, Y)), groups, posterior=POSTERIOR)
    for row, left in enumerate((range(5), range(3, 12))):
        for column, right in enumerate((range(5), range(3, 12))):
            want = np.mean([matrix[i, j] for i in left for j in right if i != j])
            assert got[row, column] == pytest.approx(want)


@pytest.mark.parametrize("way", [DENSE, BY_PRODUCTS])
def test_groups_of_one_sample_have_the_influence_of_samples_and_none_on_themselves(way):
    module = linear()
    groups = Groups({f"g{row}": np.arange(12) == row for row in range(12)}, np.ones(12, dtype=bool))
    with np.errstate(all="raise"):
        got = damped_influence(module, Target(squared, (X, Y)), groups, posterior=POSTERIOR, **way)
    off = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(got[off], closed_form(module, 12.0, 40.0)[off], rtol=1e-7)
    assert np.isnan(np.diag(got)).all()


def test_damped_influence_is_the_first_order_response_of_the_localized_minimum():
    """Finite differences of argmin L + (g / nb) / 2 |w - w*|^2 + eps l_i, by Newton steps from autograd."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    names = [name for name, _ in module.named_parameters()]
    shapes = [value.shape for value in module.parameters()]
    anchor = torch.cat([value.detach().flatten() for value in module.parameters()])

    def losses(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        weights = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return ((functional_call(module, weights, (X,)) - Y) ** 2).sum(1) / 2

    # Tilted, so that the anchor is the minimum: the influence function is about the anchor.
    slope = torch.func.grad(lambda w: losses(w).mean())(anchor)

    def minimum(weight):
        def objective(w):
            pull = 1.0 * (w - anchor).square().sum() - slope @ (w - anchor)
            return losses(w).mean() + pull + weight * losses(w)[4]

        w = anchor.clone()
        for _ in range(6):
            w = w - torch.linalg.solve(hessian(objective)(w), torch.func.grad(objective)(w))
        return losses(w)

    want = (minimum(1e-5) - minimum(-1e-5)) / 2e-5
    got = damped_influence(module, Target(squared, (X, Y)), None, posterior=LocalPosterior(10.0, 20.0))
    np.testing.assert_allclose(got[4], want.numpy(), rtol=1e-4, atol=1e-8)


def test_both_solvers_and_all_chunk_sizes_agree_on_a_language_model():
    """Double backward through attention; tokens of one sequence are no pair; against torch.func's Hessian."""
    model = tiny_gpt2().double()
    patterns = ["*h.0.attn.c_attn.bias", "*ln_f*"]
    ids = torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(1))
    masks = {"early": np.array([[1, 1, 0, 0]] * 4, bool), "some": np.arange(4) < 3}
    groups = Groups(masks, np.ones((4, 4), dtype=bool))
    posterior = LocalPosterior(3.0, 30.0)
    target = Target(causal_lm_loss, ids, selection=patterns)
    dense = damped_influence(model, target, groups, posterior=posterior, dense_limit=10**6)
    products = damped_influence(
        model,
        replace(target, chunk_size=3),
        groups,
        dense_limit=0,
        rtol=1e-8,
        posterior=posterior,
    )
    np.testing.assert_allclose(products, dense, rtol=1e-4)

    model.requires_grad_(False)
    named = dict(model.named_parameters())
    chosen = {name: value for name, value in named.items() if "h.0.attn.c_attn.bias" in name or "ln_f" in name}
    sizes = [value.numel() for value in chosen.values()]

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model.eval()

        def forward(self):
            return causal_lm_loss(self.inner, ids)[0]

    def tokens(flat):
        parts = zip(chosen.items(), flat.split(sizes), strict=True)
        weights = {f"inner.{name}": part.view(value.shape) for (name, value), part in parts}
        return functional_call(Tokens(), weights, ())

    flat = torch.cat([value.flatten() for value in chosen.values()])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        curved = hessian(lambda w: tokens(w).mean())(flat).numpy()
        gradients = torch.func.jacrev(tokens)(flat).numpy()
    left, right = gradients[:, :2].sum(1), gradients[:3].sum(1)
    inverse = np.linalg.inv(curved + 10 * np.eye(len(flat)))
    pairs = [left[i] @ inverse @ right[j] for i in range(4) for j in range(3) if i != j]
    assert dense[0, 1] == pytest.approx(-np.sum(pairs) / (9 * 8), rel=1e-4)


class Products:
    """Products with a known matrix, with a count."""

    def __init__(self, matrix):
        self.matrix, self.rows, self.passes = torch.from_numpy(matrix), 0, 0

    def of_rows(self, vectors):
        self.rows, self.passes = self.rows + len(vectors), self.passes + 1
        return vectors @ self.matrix


def spread_out(size, generator):
    turned, _ = np.linalg.qr(generator.normal(size=(size, size)))
    return (turned * np.geomspace(1e-3, 10, size)) @ turned.T


def test_rows_solved_together_take_the_same_steps_as_alone():
    """Against scipy's conjugate gradients and against a direct solution; a row of zeros needs no step."""
    generator = np.random.default_rng(0)
    matrix, vectors = spread_out(40, generator), generator.normal(size=(50, 40))
    vectors[7] = 0
    vectors[9] *= 1e6
    vectors[11] = np.linalg.eigh(matrix)[1][:, 3]  # done after one step
    like, product = torch.zeros(40, dtype=torch.float64), Products(matrix)
    got = solve_by_products(product, 0.3, vectors, like, rtol=1e-9)
    steps = []
    for row, vector in zip(got, vectors, strict=True):
        count = []
        alone, _ = cg(matrix + 0.3 * np.eye(40), vector, rtol=1e-9, atol=0.0, callback=count.append)
        np.testing.assert_allclose(row, alone, rtol=1e-7, atol=1e-12)
        steps.append(len(count))
    assert product.rows == pytest.approx(sum(steps), abs=5)  # rounding may cost one a step
    assert product.passes < product.rows / 10
    residuals = np.linalg.norm(got @ (matrix + 0.3 * np.eye(40)) - vectors, axis=1)
    assert (residuals <= 1.01e-9 * np.linalg.norm(vectors, axis=1)).all()
    np.testing.assert_allclose(got, solve_dense(matrix, 0.3, vectors), rtol=1e-6, atol=1e-9)


def test_memory_of_the_rows_is_bounded(monkeypatch):
    monkeypatch.setattr(damped, "_NUMBERS_HELD", 3 * 40)
    generator = np.random.default_rng(0)
    matrix, vectors = spread_out(40, generator), generator.normal(size=(7, 40))
    product = Products(matrix)
    got = solve_by_products(product, 0.3, vectors, torch.zeros(40, dtype=torch.float64), rtol=1e-9)
    np.testing.assert_allclose(got, solve_dense(matrix, 0.3, vectors), rtol=1e-6)
    assert product.rows / 3 <= product.passes < product.rows / 2


def test_negative_curvature_in_one_row_is_refused():
    """The other rows do not contain that direction."""
    matrix, vectors = np.diag([1.0, 2.0, -0.5]), np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    like = torch.zeros(3, dtype=torch.float64)
    solve_by_products(Products(matrix), 0.1, vectors[:1], like, rtol=1e-9)
    with pytest.raises(InputError, match="positive definite"):
        solve_by_products(Products(matrix), 0.1, vectors, like, rtol=1e-9)


def test_lack_of_convergence_by_rounding_is_refused():
    generator = np.random.default_rng(0)
    matrix, vectors = spread_out(12, generator), generator.normal(size=(2, 12))

    class Rough(Products):
        def of_rows(self, vectors):
            return super().of_rows(vectors).half().double()

    with pytest.raises(InputError, match=r"no solution to a relative residual of 1e-14 in 120 conjugate"):
        solve_by_products(Rough(matrix), 1e-3, vectors, torch.zeros(12, dtype=torch.float64), rtol=1e-14)


class Saddle(nn.Module):
    """l = (u^2 - v^2) / 2 + small slopes: curvatures 1 and -1."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3, 0.2], dtype=torch.float64))

    def forward(self, x):
        return (self.w[0] ** 2 - self.w[1] ** 2) / 2 + x @ self.w


@pytest.mark.parametrize("way", [DENSE, BY_PRODUCTS])
def test_an_indefinite_hessian_is_refused_with_the_required_damping(way):
    x = 0.1 * X[:, :2]

    def loss(module, batch):
        return module(batch)

    with pytest.raises(InputError, match=r"damping of localization / nbeta = 0.8; expected .* positive definite"):
        damped_influence(Saddle(), Target(loss, x), None, posterior=LocalPosterior(10.0, 8.0), **way)
    got = damped_influence(Saddle(), Target(loss, x), None, posterior=LocalPosterior(10.0, 15.0), **way)
    gradients = x.numpy() + np.array([0.3, -0.2])
    np.testing.assert_allclose(got, -gradients @ np.diag([1 / 2.5, 1 / 0.5]) @ gradients.T, rtol=1e-7)


def test_weights_with_a_linear_loss_have_no_curvature():
    module = linear()
    got = damped_influence(module, Target(lambda m, b: m(b[0])[:, 0], (X, Y)), None, posterior=LocalPosterior(4.0, 2.0))
    np.testing.assert_allclose(got, -(X @ X.T).numpy() / 0.5)


@pytest.mark.parametrize("way", [DENSE, BY_PRODUCTS])
@pytest.mark.parametrize("broken", ["observed", "sampling"])
def test_non_finite_derivatives_are_refused(way, broken):
    sets = {"observed": (X, Y), "sampling": (X, Y)}
    sets[broken] = (X, Y.clone().index_fill_(0, torch.tensor([3]), float("inf")))

    def loss(module, batch):
        return squared(module, batch) ** 2

    posterior = LocalPosterior(40.0, 1e6)
    with pytest.raises(InputError, match="not finite"):
        damped_influence(linear(), Target(loss, sets["observed"], sets["sampling"]), None, posterior=posterior, **way)


def test_module_is_unchanged():
    module = linear()
    squared(module, (X, Y)).mean().backward()
    before = module.weight.detach().clone(), module.weight.grad.clone()
    damped_influence(module, Target(squared, (X, Y)), None, posterior=POSTERIOR, **BY_PRODUCTS)
    assert torch.equal(module.weight, before[0])
    assert torch.equal(module.weight.grad, before[1])
    assert module.training


@pytest.mark.parametrize(
    "bad",
    [
        {"posterior": LocalPosterior(0.0, 1.0)},
        {"posterior": LocalPosterior(float("nan"), 1.0)},
        {"posterior": LocalPosterior(1.0, -1.0)},
        {"posterior": LocalPosterior(1.0, 1.0, -0.1)},
        {"rtol": 0.0},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match=r"got .*; expected "):
        damped_influence(linear(), Target(squared, (X, Y)), None, **{"posterior": POSTERIOR, **bad})
