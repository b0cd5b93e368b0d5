import numpy as np
import pytest
import torch

from stagewise.toy.descent import Weights, item_losses, trajectory
from stagewise.toy.unrolled import unrolled_influence
from tests.toy.networks import autograd_run, network, targets

LR, STEPS = 0.1, 30


@pytest.fixture
def run():
    return trajectory(network(), targets(), lr=LR, num_steps=STEPS)


def test_unrolled_influence_is_the_finite_difference_of_retraining(run):
    goal, start, delta = targets(), network(), 1e-5
    steps = [0, 1, 10, STEPS]
    found = unrolled_influence(run, goal, lr=LR, steps=steps)
    for row, step in enumerate(steps):
        for item in range(3):
            losses = []
            for change in (delta, -delta):
                sample_weights = torch.ones(3, dtype=torch.float64)
                sample_weights[item] += change
                weights = autograd_run(start, goal, sample_weights, lr=LR, num_steps=step)
                losses.append(item_losses(weights, goal).numpy())
            expected = (losses[0] - losses[1]) / (2 * delta)
            np.testing.assert_allclose(found[row, item], expected, atol=1e-8)


def test_unrolled_influence_is_the_jvp_of_the_whole_training(run):
    goal, start = targets(), network()

    def trained(sample_weights):
        first, second = start
        for _ in range(STEPS):
            error = (second @ first - goal) * sample_weights / goal.shape[1]
            first, second = first - LR * second.T @ error, second - LR * error @ first.T
        return item_losses(Weights(first, second), goal)

    jacobian = torch.func.jacfwd(trained)(torch.ones(3, dtype=torch.float64))
    found = unrolled_influence(run, goal, lr=LR, steps=[STEPS])[0]
    np.testing.assert_allclose(found, jacobian.T.numpy(), atol=1e-12)


def test_an_item_helps_itself_and_nothing_has_happened_at_the_start(run):
    found = unrolled_influence(run, targets(), lr=LR, steps=[0, 5])
    assert (found[0] == 0).all()
    assert (np.diag(found[1]) < 0).all()
