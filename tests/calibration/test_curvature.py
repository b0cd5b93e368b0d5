"""Both ends of the spectrum against the dense Hessian, and what a saddle of a deep linear net must show."""

from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stagewise.calibration.curvature import measure_curvature
from stagewise.errors import InputError
from stagewise.losses.contract import evaluate
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.selection import trainable
from stagewise.sampling.target import Target


def squared(module, batch):
    return (module(batch[0]) - batch[1]).square().mean(dim=1)


def mlp(dtype=torch.float64, width=6):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).to(dtype)


def regression(num=20, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(num, size, generator=generator, dtype=torch.float64) for size in (4, 3))
    return x.to(dtype), y.to(dtype)


def gpt_neox(dtype=torch.float64):
    torch.manual_seed(4)
    config = GPTNeoXConfig(
        vocab_size=7, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, initializer_range=0.5, attn_implementation="sdpa",
    )  # fmt: skip
    return GPTNeoXForCausalLM(config).eval().to(dtype)


def next_token(model, batch):
    """As causal_lm_loss, which computes in float32, in double precision."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")


def tokens(num=6):
    return {"input_ids": torch.randint(7, (num, 8), generator=torch.Generator().manual_seed(2))}


def dense(module, loss_fn, batch, patterns=None):
    """The Hessian over the flat weights, by torch.func or by central differences of the gradient."""
    parameters = trainable(module, patterns)
    shapes = [value.shape for value in parameters.values()]

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self):
            return evaluate(loss_fn, self.inner, batch).mean()

    def of_flat(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        weights = {
            f"inner.{name}": part.view(shape) for name, part, shape in zip(parameters, parts, shapes, strict=True)
        }
        return functional_call(Loss(), weights, ())

    flat = torch.cat([value.reshape(-1) for value in parameters.values()])
    if not any(isinstance(child, nn.LayerNorm) for child in module.modules()):
        return hessian(of_flat)(flat).detach()
    # torch.func differentiates LayerNorm's gain wrongly under vmap (its Hessian is not symmetric): differences instead.
    step = 1e-5 * torch.eye(len(flat), dtype=torch.float64)
    slope = torch.func.grad(of_flat)
    rows = torch.stack([(slope(flat + away) - slope(flat - away)) / 2e-5 for away in step]).detach()
    torch.testing.assert_close(rows, rows.T, atol=1e-6, rtol=0)
    return (rows + rows.T) / 2


CASES = {
    "mlp": (mlp, squared, regression, None),
    "one layer of it": (mlp, squared, regression, ["0.*"]),
    "gpt-neox": (gpt_neox, next_token, tokens, None),
    "attention only": (gpt_neox, next_token, tokens, ["*attention*"]),
}


@cache
def exact_ends(case):
    build, loss_fn, data, patterns = CASES[case]
    return torch.linalg.eigvalsh(dense(build(), loss_fn, data(), patterns)).numpy()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_both_ends_are_those_of_the_dense_hessian(case, chunk_size):
    build, loss_fn, data, patterns = CASES[case]
    module, batch, exact = build(), data(), exact_ends(case)
    found = measure_curvature(module, Target(loss_fn, batch, selection=patterns, chunk_size=chunk_size), tolerance=1e-6)
    norm = np.abs(exact).max()
    assert found.lam_max == pytest.approx(exact[-1], abs=1e-6 * norm)
    assert found.lam_min == pytest.approx(exact[0], abs=1e-6 * norm)
    assert found.residual < 1e-5 * norm
    assert exact[0] < -1e-3 * norm, "the case must have negative curvature to be one"


def test_loose_tolerance_errs_by_no_more_than_it_says_and_takes_fewer_products():
    module, batch = mlp(width=24), regression()
    exact = torch.linalg.eigvalsh(dense(module, squared, batch)).numpy()
    rough = measure_curvature(module, Target(squared, batch), tolerance=0.2, num_vectors=8)
    fine = measure_curvature(module, Target(squared, batch), tolerance=1e-6, num_vectors=8)
    assert rough.num_products < fine.num_products
    for found, true in ((rough.lam_max, exact[-1]), (rough.lam_min, exact[0])):
        assert abs(found - true) < 0.2 * np.abs(exact).max()
    # An eigenvalue of a symmetric matrix lies within the residual.
    assert np.abs(exact - rough.lam_max).min() <= rough.residual
    assert np.abs(exact - rough.lam_min).min() <= rough.residual


def test_single_precision_is_enough():
    exact = torch.linalg.eigvalsh(dense(mlp(), squared, regression())).numpy()
    found = measure_curvature(mlp(torch.float32), Target(squared, regression(dtype=torch.float32)), tolerance=1e-3)
    assert found.lam_max == pytest.approx(exact[-1], rel=1e-3)
    assert found.lam_min == pytest.approx(exact[0], rel=1e-2)


def test_masked_tokens_count_neither_in_sum_nor_in_number():
    def masked(module, batch):
        return (module(batch[0]) - batch[1]).square(), torch.arange(3) < batch[2][:, None]

    module, batch = mlp(), (*regression(6), torch.tensor([1, 2, 3, 1, 2, 3]))
    exact = torch.linalg.eigvalsh(dense(module, masked, batch)).numpy()
    found = measure_curvature(module, Target(masked, batch, chunk_size=3), tolerance=1e-6)
    assert found.lam_max == pytest.approx(exact[-1], rel=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_preconditioned_curvature_is_that_of_root_times_matrix_times_root(symmetric):
    module, batch = mlp(), regression()
    matrix = dense(module, squared, batch)
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(matrix.shape, generator=generator, dtype=torch.float64)
    if symmetric:
        root = torch.diag(root.diagonal().abs() + 0.1)
    eye = torch.eye(len(matrix), dtype=torch.float64)
    exact = torch.linalg.eigvalsh(root.T @ (3 * matrix + 2 * eye) @ root)
    found = measure_curvature(
        module, Target(squared, batch), root=lambda x: root @ x, posterior=LocalPosterior(3, 2), tolerance=1e-6
    )
    assert found.lam_max == pytest.approx(float(exact[-1]), rel=1e-6)
    assert found.lam_min == pytest.approx(float(exact[0]), abs=1e-6 * float(exact[-1]))


@pytest.mark.parametrize("learned", [0, 1, 2])
def test_most_negative_curvature_of_a_deep_linear_net_is_minus_the_largest_unlearned_singular_value(learned):
    """Method, section 2: at the saddle where the first modes are learned and the others are zero, over n."""
    singular = torch.tensor([5.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(6)
    left, right = (torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    x, y = torch.eye(4, dtype=torch.float64), (left * singular) @ right.T
    kept = torch.where(torch.arange(4) < learned, singular, 0.0).sqrt()
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).double()
    with torch.no_grad():
        module[0].weight.copy_(kept[:, None] * right.T)
        module[1].weight.copy_(left * kept)

    def half_squared(net, batch):
        return 0.5 * (net(batch[0]) - batch[1]).square().sum(dim=1)

    found = measure_curvature(module, Target(half_squared, (x, y.T.contiguous())), tolerance=1e-8)
    assert found.lam_min == pytest.approx(-float(singular[learned]) / len(x), rel=1e-6)


def test_linear_loss_has_no_curvature():
    def linear(module, batch):
        return module(batch[0]).sum(dim=1)

    found = measure_curvature(nn.Linear(4, 8).double(), Target(linear, regression()))
    assert (found.lam_max, found.lam_min) == (0.0, 0.0)


def test_few_weights_have_a_dense_spectrum():
    module = nn.Linear(4, 1).double()
    batch = (regression()[0], regression()[1][:, :1])
    exact = torch.linalg.eigvalsh(dense(module, squared, batch))
    found = measure_curvature(module, Target(squared, batch))
    assert found.lam_max == pytest.approx(float(exact[-1]), rel=1e-12)
    assert found.lam_min == pytest.approx(float(exact[0]), rel=1e-9)


def test_same_seed_same_answer_and_the_module_is_left_as_it_was():
    module, batch = mlp(torch.float32).train(), regression(dtype=torch.float32)
    module.insert(1, nn.BatchNorm1d(6))
    squared(module, batch).mean().backward()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    slopes = [parameter.grad.clone() for parameter in module.parameters()]
    random_state = torch.get_rng_state()
    first = measure_curvature(module, Target(squared, batch, chunk_size=8))
    assert first == measure_curvature(module, Target(squared, batch, chunk_size=8))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(parameter.grad, slope) for parameter, slope in zip(module.parameters(), slopes, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert module.training
    assert module[1].training


def attends(module, batch, backend=None):
    """Attention of a sequence to itself, each position a sample."""
    query = module(batch[0])[None, None]
    with nullcontext() if backend is None else sdpa_kernel(backend):
        return F.scaled_dot_product_attention(query, query, query)[0, 0].square().mean(dim=1)


def fused(module, batch):
    return attends(module, batch, SDPBackend.FLASH_ATTENTION)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": (torch.zeros(0, 4), torch.zeros(0, 3))}, "batch of 0 samples"),
        ({"parameters": ["nothing*"]}, "matches no trainable parameter"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"num_vectors": 3}, "num_vectors=3"),
        ({"loss_fn": fused}, "without second derivatives"),
    ],
)
def test_bad_input_is_refused(arguments, words):
    given = {"loss_fn": squared, "batch": regression(dtype=torch.float32), **arguments}
    target = Target(given.pop("loss_fn"), given.pop("batch"), selection=given.pop("parameters", None))
    with pytest.raises(InputError, match=words):
        measure_curvature(mlp(torch.float32), target, **given)


def test_product_that_is_not_finite_is_refused():
    def steep(module, batch):
        # |x|^1.5 has an infinite second derivative at 0.
        return (module(batch[0]) * 0).abs().pow(1.5).sum(dim=1)

    with pytest.raises(FloatingPointError, match="not finite"):
        measure_curvature(mlp(), Target(steep, regression()))


def test_failure_inside_the_loss_stays_what_it_was():
    def broken(module, batch):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        measure_curvature(mlp(), Target(broken, regression()))


def test_fused_attention_is_switched_off_for_the_second_derivative():
    with sdpa_kernel(SDPBackend.MATH):
        exact = torch.linalg.eigvalsh(dense(mlp(), attends, regression()))
    found = measure_curvature(mlp(), Target(attends, regression()), tolerance=1e-6)
    assert found.lam_max == pytest.approx(float(exact[-1]), rel=1e-6)
