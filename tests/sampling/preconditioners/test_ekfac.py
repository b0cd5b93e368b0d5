import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev

from stagewise.errors import InputError
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Integrator, SGLDConfig
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.preconditioners.ekfac_factors import ekfac_preconditioner
from stagewise.sampling.selection import trainable
from stagewise.sampling.target import Target

curvlinops = pytest.importorskip("curvlinops")

NBETA, LOCALIZATION = 70.0, 3.0


def cross_entropy(module, batch):
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


def half_squared(module, batch):
    return (module(batch[0]) - batch[1]).square().sum(1) / 2


def build(module, loss_fn, batch, settings=None, *, nbeta=NBETA, localization=LOCALIZATION, **more):
    target, posterior = Target(loss_fn, batch, **more), LocalPosterior(nbeta, localization)
    return ekfac_preconditioner(settings or EKFAC(), module, target=target, posterior=posterior)


def dense(preconditioner, size):
    return preconditioner.times(torch.eye(size, dtype=torch.float64))


def num_weights(module, patterns=None):
    return sum(value.numel() for value in trainable(module, patterns).values())


def classifier():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def classes(num=30, features=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num, features, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (num,), generator=generator)


def targets(num=30, features=4, outputs=2):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(num, features, generator=generator, dtype=torch.float64)
    return x, torch.randn(num, outputs, generator=generator, dtype=torch.float64)


def gauss_newton(module, batch, patterns=None):
    """Of the mean cross entropy, dense, in the order of the flat weights."""
    weights = trainable(module, patterns)
    jacobians = jacrev(lambda w: functional_call(module, w, (batch[0],)))(weights)
    flat = torch.cat([part.flatten(2) for part in jacobians.values()], dim=2)
    p = module(batch[0]).softmax(1).detach()
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return torch.einsum("nap,nab,nbq->pq", flat, hessian, flat) / len(p)


def test_linear_regression_is_preconditioned_by_its_exact_posterior_covariance():
    x, y = targets()
    module = nn.Linear(4, 2).double()
    got = dense(build(module, half_squared, (x, y), EKFAC(loss="mse")), 10)
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    inverse = torch.linalg.inv(NBETA * ones.T @ ones / len(x) + LOCALIZATION * torch.eye(5, dtype=x.dtype))
    weight = torch.arange(8).view(2, 4)
    for output in range(2):
        rows = torch.cat([weight[output], torch.tensor([8 + output])])
        torch.testing.assert_close(got[rows[:, None], rows], inverse)


def test_classifier_equals_a_dense_construction_from_its_factors():
    """In each layer: the eigenbasis of E[a a^T] and E[g g^T], and the diagonal of the Gauss-Newton matrix there."""
    module, (x, y) = classifier(), classes()
    got = dense(build(module, cross_entropy, (x, y), chunk_size=7), num_weights(module))
    exact = gauss_newton(module, (x, y))
    p = module(x).softmax(1).detach()
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    hidden = module[1](module[0](x)).detach()
    slopes = (1 - hidden**2)[:, None] * module[2].weight.detach()
    per_layer = [
        (x, torch.einsum("nai,nab,nbj->ij", slopes, hessian, slopes), (0, 20, 5)),
        (hidden, hessian.sum(0), (25, 40, 3)),
    ]
    for inputs, outer, (start, bias, rows) in per_layer:
        ones = torch.cat([inputs, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        basis = torch.kron(torch.linalg.eigh(outer).eigenvectors, torch.linalg.eigh(ones.T @ ones).eigenvectors)
        index = torch.cat([torch.arange(start, bias).view(rows, -1), torch.arange(bias, bias + rows).view(rows, 1)], 1)
        index = index.flatten()
        curvature = torch.diagonal(basis.T @ exact[index[:, None], index] @ basis)
        want = basis @ torch.diag(1 / (NBETA * curvature + LOCALIZATION)) @ basis.T
        torch.testing.assert_close(got[index[:, None], index], want)
    across = got[:25, 25:]
    assert torch.equal(across, torch.zeros_like(across))


@pytest.mark.parametrize("patterns", [["0.weight"], ["*.bias"], ["2.*", "0.bias"]])
def test_selected_parameters_have_their_part_of_the_curvature(patterns):
    module, batch = classifier(), classes()
    got = dense(build(module, cross_entropy, batch, selection=patterns), num_weights(module, patterns))
    curvature = (torch.linalg.eigvalsh(got).reciprocal() - LOCALIZATION) / NBETA
    # The corrected eigenvalues are the diagonal of the Gauss-Newton matrix in another basis: same trace.
    torch.testing.assert_close(curvature.sum(), torch.trace(gauss_newton(module, batch, patterns)))


def test_convolutions_have_their_curvature():
    module = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    x, y = classes(features=9)
    batch = (x.view(-1, 1, 3, 3), y)
    got = dense(build(module, cross_entropy, batch), num_weights(module))
    torch.testing.assert_close(got, got.T)
    curvature = (torch.linalg.eigvalsh(got).reciprocal() - LOCALIZATION) / NBETA
    torch.testing.assert_close(curvature.sum(), torch.trace(gauss_newton(module, batch)))


def test_labels_drawn_from_the_predictions_give_the_same_curvature_on_average():
    module, batch = classifier(), classes(num=20)
    size = num_weights(module)
    got = dense(build(module, cross_entropy, batch, EKFAC(fisher_type="mc", mc_samples=300, seed=3)), size)
    curvature = (torch.linalg.eigvalsh(got).reciprocal() - LOCALIZATION) / NBETA
    assert float(curvature.sum()) == pytest.approx(float(torch.trace(gauss_newton(module, batch))), rel=0.05)


def test_constant_factor_of_the_squared_error_is_measured_from_the_losses():
    batch = targets()
    module = nn.Linear(4, 2).double()
    third = build(module, lambda m, b: (m(b[0]) - b[1]).square().sum(1) / 6, batch, EKFAC(loss="mse"), nbeta=3 * NBETA)
    torch.testing.assert_close(
        dense(third, 10), dense(build(module, half_squared, batch, EKFAC(loss="mse"), nbeta=NBETA), 10)
    )


def test_stationary_covariance_of_a_gaussian_is_the_posterior_with_one_known_inflation():
    """Here P is the posterior covariance S: every direction has lr * lam = lr, and S / (1 - lr / 4) is stationary."""
    x, y = targets(outputs=1)
    module = nn.Linear(4, 1, bias=False).double()
    preconditioner = build(module, half_squared, (x, y), EKFAC(loss="mse"))
    precision = NBETA * x.T @ x / len(x) + LOCALIZATION * torch.eye(4, dtype=x.dtype)
    lr, generator = 0.3, torch.Generator().manual_seed(0)
    w = torch.zeros(20000, 4, dtype=x.dtype)
    for _ in range(40):
        noise = torch.randn(w.shape, generator=generator, dtype=w.dtype)
        w = w - lr / 2 * preconditioner.times(w @ precision) + lr**0.5 * preconditioner.root_times(noise)
    want = torch.linalg.inv(precision) / (1 - lr / 4)
    scale = want.diagonal().sqrt()
    torch.testing.assert_close(
        torch.cov(w.T) / scale / scale[:, None], want / scale / scale[:, None], atol=0.04, rtol=0
    )


@pytest.mark.parametrize("integrator", Integrator)
@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_chains_at_steps_of_order_one_sample_the_exact_posterior(engine, integrator):
    """Bayesian linear regression with weight decay in the target; losses are quadratic in a Gaussian."""
    x, y = targets(num=20, outputs=1)
    decay, precision = 0.1, NBETA * x.T @ x / len(x) + (LOCALIZATION + NBETA * 0.1) * torch.eye(4, dtype=x.dtype)
    module = nn.Linear(4, 1, bias=False).double()
    # The mode of the decayed loss, so that the chain starts where it stays.
    ridge = x.T @ x / len(x) + decay * torch.eye(4, dtype=x.dtype)
    module.weight.data = torch.linalg.solve(ridge, x.T @ y / len(x)).T
    lr = 0.6
    config = SGLDConfig(
        lr=lr,
        nbeta=NBETA,
        localization=LOCALIZATION,
        weight_decay=decay,
        num_chains=4,
        num_draws=400,
        num_burnin_steps=20,
        batch_size=20,
        preconditioner=EKFAC(loss="mse"),
        engine=engine,
        integrator=integrator,
    )
    trace = run_chains(module, half_squared, observed=(x, y), sampling=(x, y), config=config)
    got = np.cov(trace.sample_losses().reshape(-1, 20).T)
    posterior = torch.linalg.inv(precision) / (1 - lr / 4 if integrator is Integrator.euler else 1)
    slopes = (x @ module.weight.T - y) * x
    want = (slopes @ posterior @ slopes.T + (x @ posterior @ x.T) ** 2 / 2).detach().numpy()
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.97
    assert np.trace(got) == pytest.approx(np.trace(want), rel=0.15)


def test_module_and_random_state_are_unchanged():
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False), nn.Dropout(), nn.Linear(5, 3)).double()
    calls = []
    module[0].register_forward_hook(lambda *_: calls.append(1))
    before, state = deepcopy(module.state_dict()), torch.get_rng_state()
    build(module, cross_entropy, classes(), EKFAC(fisher_type="mc"))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(child.training for child in module.modules())
    assert all(value.grad is None for value in module.parameters())
    assert [len(child._forward_hooks) for child in module] == [1, 0, 0, 0]


def test_hooks_are_removed_after_a_failure(monkeypatch):
    module = classifier()

    def fails(*_):
        raise ValueError("no such thing")

    monkeypatch.setattr(curvlinops.EKFACLinearOperator, "_compute_loss_and_backward", fails)
    with pytest.raises(InputError, match="no such thing"):
        build(module, cross_entropy, classes())
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4).double(), nn.Linear(4, 3).double()

    def forward(self, x):
        return self.head(self.inner(self.inner(x)))


def tied():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)).double()
    module[1].weight = module[0].weight
    return module


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).double(), "LayerNorm"),
        (tied(), "shared"),
        (Reused(), "called 2 times"),
        (nn.Linear(4, 3).bfloat16(), "bfloat16"),
        (nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (1, 3))).double(), "logits"),
    ],
)
def test_modules_that_do_not_fit_are_refused(module, match):
    with pytest.raises(InputError, match=match):
        build(module, cross_entropy, classes())


def test_unsupported_layers_may_stay_at_the_training_weights():
    module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).double()
    assert dense(build(module, cross_entropy, classes(), selection=["0.*"]), 15).shape == (15, 15)


@pytest.mark.parametrize(
    ("loss_fn", "batch", "settings", "match"),
    [
        (lambda m, b: cross_entropy(m, b) ** 2, classes(), EKFAC(), "proportional"),
        (lambda m, b: (cross_entropy(m, b), b[1] > 0), classes(), EKFAC(), "unmasked"),
        (cross_entropy, classes(), EKFAC(loss="mse"), "one shape"),
        (lambda m, b: half_squared(m, (b[0], F.one_hot(b[1]))), classes(), EKFAC(), "proportional"),
        (lambda m, b: m(b["x"]).sum(1), {"x": classes()[0]}, EKFAC(), "two tensors"),
    ],
)
def test_losses_and_batches_that_do_not_fit_are_refused(loss_fn, batch, settings, match):
    with pytest.raises(InputError, match=match):
        build(classifier(), loss_fn, batch, settings)


def test_localization_is_required():
    with pytest.raises(InputError, match="localization"):
        build(classifier(), cross_entropy, classes(), localization=0.0)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"loss": "hinge"}, "loss='hinge'"),
        ({"fisher_type": "empirical"}, "fisher_type"),
        ({"mc_samples": 0}, "mc_samples"),
        ({"mc_samples": 2}, "type-2"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        EKFAC(**settings)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    with pytest.raises(InputError, match=r"stagewise\[ekfac\]"):
        build(classifier(), cross_entropy, classes())
