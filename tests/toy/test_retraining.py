import numpy as np
import pytest
import torch

from stagewise.errors import InputError
from stagewise.toy.descent import Weights, descend, item_losses, trajectory
from stagewise.toy.retraining import horizon_effect, retraining_effect, window_effect
from stagewise.toy.unrolled import unrolled_influence
from tests.toy.networks import autograd_run, network, targets

LR, STEPS = 0.1, 40


def weights_with(item, weight):
    found = torch.ones(3, dtype=torch.float64)
    found[item] = weight
    return found


@pytest.fixture
def run():
    return trajectory(network(), targets(), lr=LR, num_steps=STEPS)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_retraining_is_that_of_one_run_after_the_other(weight):
    goal, start = targets(), network()
    found = retraining_effect(start, goal, lr=LR, steps=[3, 20], weight=weight)
    for row, step in enumerate([3, 20]):
        base = item_losses(autograd_run(start, goal, torch.ones(3).double(), lr=LR, num_steps=step), goal)
        for item in range(3):
            changed = autograd_run(start, goal, weights_with(item, weight), lr=LR, num_steps=step)
            expected = (item_losses(changed, goal) - base) / (weight - 1)
            np.testing.assert_allclose(found[row, item], expected.numpy(), atol=1e-12)


def test_dropping_an_item_has_the_sign_of_influence():
    found = retraining_effect(network(), targets(), lr=LR, steps=[20])
    # Loss with the item minus loss without it: an item helps itself.
    assert (np.diag(found[0]) < 0).all()


def test_a_small_change_tends_to_the_unrolled_influence(run):
    small = retraining_effect(network(), targets(), lr=LR, steps=[30], weight=1 - 1e-6)
    exact = unrolled_influence(run, targets(), lr=LR, steps=[30])
    np.testing.assert_allclose(small, exact, atol=1e-6)


def test_renormalising_the_mean_would_give_another_answer():
    goal, start = targets(), network()
    kept = retraining_effect(start, goal, lr=LR, steps=[30])[0]
    base = item_losses(autograd_run(start, goal, torch.ones(3).double(), lr=LR, num_steps=30), goal)
    renormalised = np.stack(
        [
            (
                base
                - item_losses(autograd_run(start, goal, weights_with(item, 0.0) * 3 / 2, lr=LR, num_steps=30), goal)
            ).numpy()
            for item in range(3)
        ]
    )
    away = ~np.eye(3, dtype=bool)
    assert np.abs(kept - renormalised)[away].max() > 0.5 * np.abs(kept[away]).max()


def test_horizon_effect_is_that_of_runs_from_the_checkpoint_and_goes_on_beyond_the_end(run):
    goal = targets()
    found = horizon_effect(run, goal, lr=LR, steps=[5, STEPS], horizons=[1, 12], weight=0.0)
    assert found.shape == (2, 2, 3, 3)
    for column, step in enumerate([5, STEPS]):
        shared = Weights(run.first[step], run.second[step])
        for row, horizon in enumerate([1, 12]):
            base = item_losses(autograd_run(shared, goal, torch.ones(3).double(), lr=LR, num_steps=horizon), goal)
            for item in range(3):
                changed = autograd_run(shared, goal, weights_with(item, 0.0), lr=LR, num_steps=horizon)
                expected = (base - item_losses(changed, goal)).numpy()
                np.testing.assert_allclose(found[row, column, item], expected, atol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_window_effect_is_that_of_single_runs_in_all_three_readings(run, weight):
    goal = targets()
    starts, lengths = [0, 7, 20], [4, 15]
    found = window_effect(run, goal, lr=LR, starts=starts, lengths=lengths, weight=weight)
    base = item_losses(run, goal).numpy()
    for row, length in enumerate(lengths):
        for column, start in enumerate(starts):
            for item in range(3):
                weights = Weights(run.first[start], run.second[start])
                path = list(descend(weights, goal, weights_with(item, weight), lr=LR, num_steps=length))
                rest = STEPS - start - length
                path += list(descend(path[-1], goal, torch.ones(3).double(), lr=LR, num_steps=rest))[1:]
                losses = np.stack([item_losses(value, goal).numpy() for value in path])
                deviation = (losses - base[start:]) / (weight - 1)
                np.testing.assert_allclose(found.window_end[row, column, item], deviation[length], atol=1e-12)
                np.testing.assert_allclose(found.run_end[row, column, item], deviation[-1], atol=1e-12)
                largest = np.take_along_axis(deviation, np.abs(deviation).argmax(axis=0)[None], axis=0)[0]
                np.testing.assert_allclose(found.maximum[row, column, item], largest, atol=1e-12)


def test_a_window_that_ends_with_the_run_is_read_once(run):
    found = window_effect(run, targets(), lr=LR, starts=[STEPS - 10], lengths=[10])
    np.testing.assert_array_equal(found.window_end, found.run_end)


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_weights_without_an_effect_or_below_zero_are_refused(run, weight):
    with pytest.raises(InputError, match="0 to drop"):
        retraining_effect(network(), targets(), lr=LR, steps=[3], weight=weight)
    with pytest.raises(InputError, match="0 to drop"):
        window_effect(run, targets(), lr=LR, starts=[0], lengths=[2], weight=weight)


def test_windows_beyond_the_run_or_out_of_order_and_empty_horizons_are_refused(run):
    with pytest.raises(InputError, match="within the run"):
        window_effect(run, targets(), lr=LR, starts=[35], lengths=[10])
    with pytest.raises(InputError, match="increasing starts"):
        window_effect(run, targets(), lr=LR, starts=[5, 2], lengths=[10])
    with pytest.raises(InputError, match="1 step or more"):
        horizon_effect(run, targets(), lr=LR, steps=[3], horizons=[0])
