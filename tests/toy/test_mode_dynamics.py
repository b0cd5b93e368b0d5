import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from stagewise.errors import InputError
from stagewise.toy.descent import Weights, trajectory
from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.initialisation import aligned_weights, gaussian_weights
from stagewise.toy.mode_dynamics import half_time, initial_strengths, mode_strengths, strength_at

HIERARCHY = Hierarchy()
MODES = HIERARCHY.modes()
TARGETS = torch.tensor(HIERARCHY.features.T.copy())


def generator(seed):
    return torch.Generator().manual_seed(seed)


def errors_over_training(weights, modes, initial, *, lr, num_steps):
    """[step, mode]: distance of the measured strengths from the closed form, in units of s; and the measured ones."""
    measured = mode_strengths(trajectory(weights, TARGETS, lr=lr, num_steps=num_steps), modes)
    time = lr * np.arange(num_steps + 1)
    return np.abs(measured - strength_at(modes.strengths, initial, time=time[:, None], num_items=8)), measured


def test_the_closed_form_solves_its_differential_equation():
    s, a0, n = np.array([0.4, 1.0, 3.0, 2.0]), np.array([1e-4, 0.3, 1e-2, 2.5]), 5
    times = np.linspace(0.1, 30, 7)
    solved = solve_ivp(lambda _, a: 2 * a * (s - a) / n, (0, 30), a0, t_eval=times, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(strength_at(s, a0, time=times[:, None], num_items=n), solved.y.T, rtol=1e-7)


def test_the_closed_form_starts_at_the_start_and_ends_at_s_without_overflow():
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for a0 in (1e-300, 1e-5, 2.0, 9.0):
            values = strength_at(2.0, a0, time=[0.0, 1e6, 1e300], num_items=3)
            np.testing.assert_allclose(values, [a0, 2.0, 2.0], rtol=1e-12)


def test_half_is_learned_at_the_half_time():
    s, a0 = np.array([0.5, 2.0, 3.9]), np.array([1e-6, 0.1, 1.5])
    half = half_time(s, a0, num_items=6)
    np.testing.assert_allclose(strength_at(s, a0, time=half, num_items=6), s / 2, rtol=1e-12)
    assert half_time(1.0, 0.6, num_items=6) < 0


def test_an_aligned_start_follows_the_closed_form():
    initial = np.geomspace(1e-2, 1e-4, 8)
    weights = aligned_weights(MODES, 10, initial=initial, generator=generator(100))
    error, measured = errors_over_training(weights, MODES, initial, lr=0.005, num_steps=12_000)
    assert (error < 0.01 * MODES.strengths).all()
    assert (measured[-1] > 0.98 * MODES.strengths).all()
    # What was found from the weights is what they were made of.
    found, modes = initial_strengths(weights, MODES)
    np.testing.assert_allclose(found, initial, rtol=1e-10)
    np.testing.assert_allclose(modes.right, MODES.right, atol=1e-7)


@pytest.mark.parametrize("seed", [100, 101, 103])
def test_a_small_gaussian_start_nearly_follows_the_closed_form(seed):
    weights = gaussian_weights(8, 15, hidden=32, std=1e-3, generator=generator(seed))
    initial, modes = initial_strengths(weights, MODES)
    error, measured = errors_over_training(weights, modes, initial, lr=0.02, num_steps=3800)
    assert (error < 0.12 * MODES.strengths).all()
    assert (measured[0] < 1e-3).all()
    assert (measured[-1] > 0.98 * MODES.strengths).all()
    # One strength for all, their mean, is no substitute.
    common, _ = errors_over_training(weights, modes, initial.mean(), lr=0.02, num_steps=3800)
    assert (common / MODES.strengths).max() > 1.5 * (error / MODES.strengths).max()


def test_modes_of_a_group_are_turned_until_their_starts_are_orthogonal():
    weights = gaussian_weights(8, 15, hidden=12, std=0.1, generator=generator(102))
    initial, modes = initial_strengths(weights, MODES)
    np.testing.assert_allclose(modes.left * modes.strengths @ modes.right.T, HIERARCHY.features.T, atol=1e-12)
    growing = (weights.first.numpy() @ modes.right + weights.second.numpy().T @ modes.left) / 2
    overlaps = growing.T @ growing
    np.testing.assert_allclose(np.diag(overlaps), initial, rtol=1e-10)
    for group in modes.groups:
        members = list(group)
        inner = overlaps[np.ix_(members, members)]
        np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-15)
        assert (np.diff(initial[members]) < 0).all()
        np.testing.assert_allclose(
            modes.right[:, members] @ modes.right[:, members].T,
            MODES.right[:, members] @ MODES.right[:, members].T,
            atol=1e-12,
        )
    for vector in modes.right.T:
        assert vector[np.flatnonzero(np.abs(vector) > 1e-9)[0]] > 0


def test_modes_whose_starts_tie_stay_as_they_were():
    """Rounding makes the starts differ in the last digits, which must not turn them."""
    weights = aligned_weights(MODES, 8, initial=1e-3, generator=generator(103))
    initial, modes = initial_strengths(weights, MODES)
    np.testing.assert_allclose(initial, 1e-3, rtol=1e-10)
    np.testing.assert_allclose(modes.right, MODES.right, atol=1e-12)
    np.testing.assert_allclose(modes.left, MODES.left, atol=1e-12)


def test_mode_strengths_are_the_coordinates_of_the_map():
    random = [torch.randn(2, 3, *shape, generator=generator(104), dtype=torch.float64) for shape in ((4, 8), (15, 4))]
    strengths = mode_strengths(Weights(*random), MODES)
    assert strengths.shape == (2, 3, 8)
    for index in np.ndindex(2, 3):
        answers = (random[1][index] @ random[0][index]).numpy()
        for mode in range(8):
            want = MODES.left[:, mode] @ answers @ MODES.right[:, mode]
            assert strengths[(*index, mode)] == pytest.approx(want, rel=1e-10)


def test_what_has_no_meaning_is_refused():
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="strengths"):
            strength_at([1.0, bad], 0.1, time=1.0, num_items=2)
        with pytest.raises(InputError, match="initial"):
            strength_at(1.0, bad, time=1.0, num_items=2)
    with pytest.raises(InputError, match="time"):
        strength_at(1.0, 0.1, time=-1.0, num_items=2)
    with pytest.raises(InputError, match="num_items"):
        half_time(1.0, 0.1, num_items=0)
    with pytest.raises(InputError, match=r"initial.*start smaller"):
        half_time(1.0, 1.0, num_items=3)
    narrow = gaussian_weights(8, 15, hidden=7, std=1e-3, generator=generator(105))
    with pytest.raises(InputError, match="hidden units=7"):
        initial_strengths(narrow, MODES)
