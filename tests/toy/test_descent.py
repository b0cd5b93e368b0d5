import pytest
import torch

from stagewise.toy.descent import Weights, descend, gradient, item_losses, trajectory
from tests.toy.networks import autograd_run, network, targets


def test_losses_are_those_of_a_loop_over_items():
    weights, goal = network(), targets()
    for item in range(goal.shape[1]):
        answer = weights.second @ weights.first[:, item]
        expected = sum(float(answer[p] - goal[p, item]) ** 2 for p in range(len(goal))) / 2
        assert item_losses(weights, goal)[item].item() == pytest.approx(expected, abs=1e-14)


def test_gradient_is_that_of_autograd_for_any_weights_and_any_batch():
    goal = targets()
    sample_weights = torch.tensor([[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]], dtype=torch.float64)
    nets = [network(seed=1), network(seed=2)]
    batch = Weights(torch.stack([item.first for item in nets]), torch.stack([item.second for item in nets]))
    found = gradient(batch, goal, sample_weights)
    for row, net in enumerate(nets):
        first, second = (part.clone().requires_grad_() for part in net)
        # The mean keeps its 1/n.
        loss = (sample_weights[row] * item_losses(Weights(first, second), goal)).sum() / goal.shape[1]
        expected = torch.autograd.grad(loss, [first, second])
        torch.testing.assert_close(found.first[row], expected[0])
        torch.testing.assert_close(found.second[row], expected[1])


def test_descent_equals_a_torch_optimizer():
    goal, start = targets(), network()
    sample_weights = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    *_, last = descend(start, goal, sample_weights, lr=0.1, num_steps=25)
    expected = autograd_run(start, goal, sample_weights, lr=0.1, num_steps=25)
    torch.testing.assert_close(last.first, expected.first)
    torch.testing.assert_close(last.second, expected.second)


def test_trajectory_starts_at_the_start_and_has_an_entry_for_each_step():
    goal, start = targets(), network()
    run = trajectory(start, goal, lr=0.1, num_steps=7)
    assert run.first.shape == (8, *start.first.shape)
    torch.testing.assert_close(run.first[0], start.first, rtol=0, atol=0)
    expected = autograd_run(start, goal, torch.ones(3, dtype=torch.float64), lr=0.1, num_steps=7)
    torch.testing.assert_close(run.second[7], expected.second)


def test_start_is_not_changed():
    goal, start = targets(), network()
    kept = start.first.clone()
    trajectory(start, goal, lr=0.1, num_steps=3)
    torch.testing.assert_close(start.first, kept, rtol=0, atol=0)


def test_repeat_makes_copies():
    start = network()
    batch = start.repeat(2, 3)
    assert batch.second.shape == (2, 3, *start.second.shape)
    batch.first.zero_()
    assert start.first.abs().max() > 0
