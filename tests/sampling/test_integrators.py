"""Stationary laws of the integrators: exact for Gaussians, against quadrature for a quartic."""

import math

import numpy as np
import pytest
import torch

from stagewise.sampling.config import Integrator
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.diagonal import Diagonal
from stagewise.sampling.preconditioners.kronecker import KroneckerBlock, KroneckerPreconditioner
from stagewise.sampling.relaxation import draw_correlation, memory, relaxation_steps
from stagewise.sampling.sgld import sgld_step_
from tests.sampling.preconditioners.test_kronecker import orthogonal

LM, EULER = Integrator
REACHES = [0.5, 1.0, 2.0, 3.0]


def responses(integrator, hessian, *, lr, steps, nbeta=1.0, localization=0.0, preconditioner=None, gradient_noise=0.0):
    """Returns the weights after each step as linear functions of all noise so far, without sampling error.

    A chain of a quadratic target is linear in its noise. The kernel moves one row for each number of the noise, with a
    one in its place and zeros elsewhere; products of the rows are then covariances.

    Returns:
        ``[step, noise, weight]``, from w = 0.
    """
    size = len(hessian)
    rows = (steps + 1) * size
    weights = torch.zeros(rows + steps * size, size, dtype=torch.float64)

    def unit(number, scale=1.0, start=0):
        found = torch.zeros_like(weights)
        found[start + number * size : start + (number + 1) * size] = scale * torch.eye(size, dtype=torch.float64)
        return found

    found = []
    for step in range(steps):
        sgld_step_(
            weights,
            torch.zeros(size, dtype=torch.float64),
            weights @ hessian + unit(step, gradient_noise, rows),
            [unit(step), unit(step + 1)] if integrator is LM else [unit(step)],
            lr=lr,
            posterior=LocalPosterior(nbeta, localization),
            preconditioner=preconditioner,
        )
        found.append(weights.clone())
    return torch.stack(found)


def one_direction(integrator, reach, **more):
    """Responses ``[step, noise]`` at curvature 1.5 of the loss and localization 2."""
    nbeta, curvature, localization = 3.0, 1.5, 2.0
    hessian = torch.tensor([[curvature]], dtype=torch.float64)
    how = {"lr": reach / 6.5, "nbeta": nbeta, "localization": localization, "steps": 120}
    return responses(integrator, hessian, **how, **more)[..., 0]


@pytest.mark.parametrize("reach", REACHES)
def test_gaussian_target_has_the_exact_variance_at_every_stable_step_where_the_euler_step_is_too_wide(reach):
    exact = one_direction(LM, reach)[-1].square().sum()
    assert float(exact) * 6.5 == pytest.approx(1, abs=1e-9)
    euler = one_direction(EULER, reach)[-1].square().sum()
    assert float(euler) * 6.5 == pytest.approx(1 / (1 - reach / 4), abs=1e-9)


@pytest.mark.parametrize("reach", REACHES)
def test_autocorrelation_of_draws_follows_the_formula(reach):
    a = 1 - reach / 2
    for integrator, first in ((LM, (1 + a) / 2), (EULER, a)):
        found = one_direction(integrator, reach)
        *before, last = found[-6:]
        got = [float(last @ item / (last @ last)) for item in reversed(before)]
        assert got == pytest.approx([a**k * first for k in range(5)], abs=1e-9)


@pytest.mark.parametrize("integrator", Integrator)
@pytest.mark.parametrize("reach", REACHES)
def test_minibatch_noise_is_not_averaged(integrator, reach):
    """It adds lr nbeta^2 Var / 4 over 1 - reach / 4 to a variance of one."""
    without = one_direction(integrator, reach)[-1].square().sum()
    noisy = one_direction(integrator, reach, gradient_noise=0.7)[-1].square().sum()
    heat = (reach / 6.5) * 3.0**2 * 0.7**2 / 4 / (1 - reach / 4)
    assert float(noisy - without) * 6.5 == pytest.approx(heat, rel=1e-9)


def preconditioners():
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.2
    block = KroneckerBlock(((0, 3),), orthogonal(2, generator), orthogonal(3, generator), scale)
    return {"diagonal": Diagonal(scale.flatten()), "kronecker": KroneckerPreconditioner([block])}


@pytest.mark.parametrize("name", ["diagonal", "kronecker"])
@pytest.mark.parametrize("reach", [1.0, 3.0])
def test_preconditioned_chain_has_the_exact_covariance_too(name, reach):
    """In six weights with a full Hessian; the step is such that the steepest direction has the stated reach."""
    preconditioner = preconditioners()[name]
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    hessian = factor @ factor.T / 6
    precision = 2.0 * hessian + 1.5 * torch.eye(6, dtype=torch.float64)
    root = preconditioner.root_times(torch.eye(6, dtype=torch.float64)).T
    steepest = float(torch.linalg.eigvalsh(root.T @ precision @ root)[-1])
    flattest = float(torch.linalg.eigvalsh(root.T @ precision @ root)[0])
    how = {"nbeta": 2.0, "localization": 1.5, "preconditioner": preconditioner, "lr": reach / steepest}
    steps = math.ceil(math.log(1e-7) / math.log(max(memory(reach), memory(reach * flattest / steepest))))
    last = responses(LM, hessian, steps=steps, **how)[-1]
    torch.testing.assert_close(last.T @ last, torch.linalg.inv(precision), rtol=0, atol=1e-9)
    euler = responses(EULER, hessian, steps=steps, **how)[-1]
    assert float(((euler.T @ euler) @ precision).trace()) > 6 * 1.02


def quartic_moment():
    """E w^2 of exp(-w^4 / 4 - w^2 / 2), by quadrature."""
    w = np.linspace(-8, 8, 20001)
    density = np.exp(-(w**4) / 4 - w**2 / 2)
    return float((w**2 * density).sum() / density.sum())


def stationary_moment(integrator, lr):
    """E w^2 of a chain of the same target, from the operator of one step on a grid.

    The second-order step looks at two noises, but v = w - sqrt(lr) R / 2 is a Markov chain: with the next noise left
    out, the kernel takes v + sqrt(lr) R / 2 to the next v. Expectations over R by Gauss-Hermite, functions of v by
    cubic interpolation: no error of sampling.
    """
    grid = torch.linspace(-4, 4, 401, dtype=torch.float64)
    nodes, masses = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(60))
    masses = masses / masses.sum()
    kick = math.sqrt(lr) / 2 if integrator is LM else 0.0
    w = grid[:, None] + kick * nodes
    at, noise = w.clone(), nodes.expand_as(w)
    noises = [noise, torch.zeros_like(w)] if integrator is LM else [noise]
    sgld_step_(w, torch.zeros_like(w), at**3, noises, lr=lr, posterior=LocalPosterior(1.0, 1.0))
    place = ((w + 4) / 0.02).clamp(1, 398.999)
    left = place.floor().long()
    t = place - left
    operator = torch.zeros(401, 401, dtype=torch.float64)
    weights = (-t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2, -(t + 1) * t * (t - 2) / 2,
               (t + 1) * t * (t - 1) / 6)  # fmt: skip
    for offset, share in zip((-1, 0, 1, 2), weights, strict=True):
        operator.scatter_add_(1, left + offset, share * masses)
    law = torch.exp(-(grid**2))
    for _ in range(math.ceil(40 / lr)):
        law = law @ operator
        law /= law.sum()
    return float(law @ (at**2 @ masses))


def test_quartic_target_is_sampled_to_second_order_in_the_step():
    """Against quadrature. Halving the step takes off three quarters of the error; of Euler's, a half."""
    exact = quartic_moment()
    errors = {item: [stationary_moment(item, lr) - exact for lr in (0.1, 0.05)] for item in Integrator}
    coarse, fine = map(abs, errors[LM])
    assert coarse < 1e-3 * exact
    assert coarse / fine == pytest.approx(4, rel=0.1)
    assert errors[EULER][0] / errors[EULER][1] == pytest.approx(2, rel=0.1)
    assert errors[EULER][1] > 50 * fine


@pytest.mark.parametrize("spacing", [1, 2, 3, 7])
@pytest.mark.parametrize("reach", [0.1, 0.8, 2.0, 2.5, 3.6])
def test_correlation_of_draws_is_the_autocorrelation_at_their_spacing(reach, spacing):
    a = 1 - reach / 2
    assert draw_correlation(reach, spacing) == pytest.approx(
        a**spacing * (1 + a) / (2 * a) if a else 0.5 * (spacing == 1)
    )


def test_second_order_draws_are_worth_five_euler_draws():
    """.55 of independent ones for a covariance at a reach of 1.5; Euler's are .1 at the .2 that its variance allows."""
    lags = np.array([draw_correlation(1.5, lag) for lag in range(1, 200)])
    assert 1 / (1 + 2 * (lags**2).sum()) == pytest.approx(0.5455, abs=1e-4)
    a = 1 - 0.2 / 2
    assert (1 - a**2) / (1 + a**2) == pytest.approx(0.105, abs=1e-3)


@pytest.mark.parametrize("reach", [0.02, 0.8, 1.9, 2.0, 2.5, 3.9])
@pytest.mark.parametrize("left", [0.5, 0.1, 0.01])
def test_relaxation_takes_the_fewest_sufficient_steps(reach, left):
    steps = relaxation_steps(reach, left)
    assert memory(reach) ** steps <= left * (1 + 1e-9)
    assert steps == 1 or memory(reach) ** (steps - 1) > left
