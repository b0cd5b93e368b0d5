"""Products with the Hessian, singly and several at once."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

from stagewise.isolation import with_weights
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.losses.contract import evaluate
from stagewise.sampling import hessian as hessians
from stagewise.sampling.hessian import HessianProducts
from stagewise.sampling.weights import FlatWeights
from tests.lm_families import tiny_gpt2

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)


class Cubed(torch.autograd.Function):
    """x^3, with Python code that vmap does not support."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return Squared3.apply(x) * slope


class Squared3(torch.autograd.Function):
    """3 x^2, with such code too."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 3 * x**2

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        assert float(slope.abs().sum()) >= 0  # data-dependent: refused within vmap
        return 6 * x * slope


def power(module, batch):
    return Cubed.apply(module(batch)).sum(1)


def smooth(module, batch):
    return torch.tanh(module(batch)).pow(2).sum(1)


def products(module, loss_fn, batch, vectors, chunk_size=None):
    """Returns products several at once, and singly."""
    weights = FlatWeights(module)
    found = []

    def run():
        product = HessianProducts(weights, lambda part: evaluate(loss_fn, module, part), batch, chunk_size)
        found.append(product.of_rows(vectors))
        found.append(torch.stack([product(vector) for vector in vectors]))

    with torch.enable_grad():
        with_weights(module, weights.leaves, run)
    return found


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("loss_fn", [smooth, power])
def test_row_products_are_those_of_the_hessian_batched_or_not(loss_fn, chunk_size):
    torch.manual_seed(0)
    module = nn.Linear(3, 2).double()
    flat = torch.cat([value.detach().flatten() for value in module.parameters()])

    def mean(vector):
        weight, bias = vector[:6].view(2, 3), vector[6:]
        out = functional_call(module, {"weight": weight, "bias": bias}, X)
        return ((out**3) if loss_fn is power else torch.tanh(out) ** 2).sum() / len(X)

    want = hessian(mean)(flat)
    for got in products(module, loss_fn, X, torch.eye(8, dtype=torch.float64), chunk_size):
        torch.testing.assert_close(got, want)


def test_row_products_of_a_language_model_equal_single_products():
    module = tiny_gpt2()
    ids = torch.randint(8, (3, 6), generator=GENERATOR)
    vectors = torch.randn(3, sum(value.numel() for value in module.parameters()), generator=GENERATOR)
    several, single = products(module, causal_lm_loss, ids, vectors)
    torch.testing.assert_close(several, single, rtol=1e-4, atol=1e-5 * float(single.abs().max()))


@pytest.mark.parametrize("bound", ["_NUMBERS_AT_ONCE", "_LOSSES_AT_ONCE"])
@pytest.mark.parametrize("most", [0, 40])
def test_row_products_do_not_depend_on_the_block_size(monkeypatch, bound, most):
    """Eight weights or chunks of four samples: five or ten rows in a pass, or one."""
    monkeypatch.setattr(hessians, bound, most)
    seen = []
    monkeypatch.setattr(
        HessianProducts,
        "_add",
        lambda self, *args, _add=HessianProducts._add, **more: (seen.append(len(args[1])), _add(self, *args, **more)),
    )
    module = nn.Linear(3, 2).double()
    vectors = torch.randn(12, 8, generator=GENERATOR, dtype=torch.float64)
    several, single = products(module, smooth, X, vectors, chunk_size=4)
    torch.testing.assert_close(several, single)
    largest = {0: 1, 40: 5 if bound == "_NUMBERS_AT_ONCE" else 12}[most]
    assert max(seen) == largest


def test_products_that_are_not_finite_raise_an_error_in_both_modes():
    module = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        module.weight.zero_()
    roots = lambda found, batch: found(batch).abs().sqrt().sum(1)  # noqa: E731
    with pytest.raises(FloatingPointError):
        products(module, roots, X[:, :1], torch.ones(2, 1, dtype=torch.float64))
