"""Against dense matrices by automatic differentiation."""

import pytest
import torch
from torch.func import hessian, jacrev

from stagewise.toy.curvature import lowest_curvature, mean_hessian, precision_at
from stagewise.toy.descent import Weights, trajectory
from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.initialisation import gaussian_weights

UNEVEN = Hierarchy({"life": [{"animal": ["dog", "cat", "bat"]}, "oak"]})
TARGETS = torch.tensor(UNEVEN.features.T.copy())  # 6 properties, 4 items


def midway(hidden, *, num_steps=60, seed=100):
    """Part of the way through training."""
    start = gaussian_weights(4, TARGETS.shape[0], hidden=hidden, std=0.1, generator=torch.Generator().manual_seed(seed))
    run = trajectory(start, TARGETS, lr=0.1, num_steps=num_steps)
    return Weights(run.first[-1], run.second[-1])


def flat(weights):
    return torch.cat([part.flatten() for part in weights])


def dense(weights, targets=TARGETS):
    """[item, weight] gradients and [item, weight, weight] Hessians."""
    hidden, cut = weights.first.shape[0], weights.first.numel()

    def losses(vector):
        answers = vector[cut:].view(-1, hidden) @ vector[:cut].view(hidden, -1)
        return ((answers - targets) ** 2).sum(dim=0) / 2

    return jacrev(losses)(flat(weights)), hessian(losses)(flat(weights))


def covariance_by_inverse(weights, nbeta, localization, targets=TARGETS):
    """First order, tr(H_i S H_j S), tr(H_i S), term by term."""
    gradients, hessians = dense(weights, targets)
    size = hessians.shape[1]
    spread = torch.linalg.inv(nbeta * hessians.mean(dim=0) + localization * torch.eye(size, dtype=torch.float64))
    curved = hessians @ spread
    second = torch.stack([torch.stack([torch.trace(left @ right) for right in curved]) for left in curved])
    return gradients @ spread @ gradients.T, second, torch.stack([torch.trace(item) for item in curved])


@pytest.mark.parametrize("hidden", [1, 3, 14])
def test_the_hessian_is_that_of_automatic_differentiation(hidden):
    weights = midway(hidden)
    torch.testing.assert_close(mean_hessian(weights, TARGETS), dense(weights)[1].mean(dim=0))


@pytest.mark.parametrize("hidden", [1, 3, 10, 14])
@pytest.mark.parametrize("num_steps", [0, 60, 2000])
def test_the_lowest_curvature_is_the_smallest_eigenvalue(hidden, num_steps):
    weights = midway(hidden, num_steps=num_steps)
    want = torch.linalg.eigvalsh(dense(weights)[1].mean(dim=0))[0]
    assert lowest_curvature(weights, TARGETS) == pytest.approx(float(want), abs=1e-13)


def test_of_small_weights_it_is_minus_the_strongest_mode_over_the_number_of_items():
    weights = Weights(*(1e-9 * part for part in midway(5)))
    assert lowest_curvature(weights, TARGETS) == pytest.approx(-UNEVEN.modes().strengths[0] / 4, rel=1e-8)


@pytest.mark.parametrize("hidden", [1, 3, 14])
def test_the_factored_precision_solves(hidden):
    weights = midway(hidden)
    vector = Weights(*(torch.randn_like(part) for part in weights))
    matrix = 30 * mean_hessian(weights, TARGETS) + 40 * torch.eye(flat(weights).numel(), dtype=torch.float64)
    got = precision_at(weights, TARGETS, 30.0, 40.0).solve(vector)
    torch.testing.assert_close(flat(got), torch.linalg.solve(matrix, flat(vector)))


@pytest.mark.parametrize("nbeta", [0.0, 30.0])
def test_a_precision_exists_where_all_eigenvalues_are_above_0(nbeta):
    weights = midway(6, num_steps=20)
    limit = -nbeta * lowest_curvature(weights, TARGETS)
    assert limit > 5 or nbeta == 0
    assert precision_at(weights, TARGETS, nbeta, limit + 1e-6) is not None
    if nbeta > 0:
        assert precision_at(weights, TARGETS, nbeta, limit - 1e-6) is None


@pytest.mark.parametrize("hidden", [1, 3, 14])
@pytest.mark.parametrize(("nbeta", "localization"), [(30.0, 40.0), (0.0, 2.0), (2000.0, 1500.0)])
def test_moments_of_the_losses_are_those_of_the_plain_inverse(hidden, nbeta, localization):
    weights = midway(hidden)
    got = precision_at(weights, TARGETS, nbeta, localization).loss_covariance()
    want = covariance_by_inverse(weights, nbeta, localization)
    for part, exact in zip(got, want, strict=True):
        torch.testing.assert_close(part, exact, rtol=1e-9, atol=1e-12 * float(exact.abs().max()))


def test_moments_of_more_items_than_properties_are_those_of_the_plain_inverse():
    generator = torch.Generator().manual_seed(101)
    targets = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    weights = gaussian_weights(7, 2, hidden=3, std=0.5, generator=generator)
    got = precision_at(weights, targets, 20.0, 30.0).loss_covariance()
    for part, exact in zip(got, covariance_by_inverse(weights, 20.0, 30.0, targets), strict=True):
        torch.testing.assert_close(part, exact, rtol=1e-9, atol=1e-12)
