import numpy as np
import pytest
import torch

from stagewise.errors import InputError
from stagewise.toy.closed_form import closed_form_influence
from stagewise.toy.descent import descend, item_losses
from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.initialisation import aligned_weights, gaussian_weights
from stagewise.toy.mode_dynamics import initial_strengths, strength_at
from stagewise.toy.modes import modes_of

UNEVEN = {"life": [{"animal": {"mammal": ["dog", "cat", "bat"], "bird": ["wren"]}}, {"plant": ["oak"]}, "virus"]}
DEFAULT = Hierarchy().features
REPEATED = DEFAULT[[0, 0, 2, 5]]  # two equal items: one direction outside the modes


def generator(seed=100):
    return torch.Generator().manual_seed(seed)


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def measured_influence(weights, features, times, *, lr, perturb="correlation", epsilon=1e-4):
    """{time: [item p, item j]} by central differences of explicit gradient descent, all runs at once.

    ``correlation``: only y_p x_p^T is weighted, as if the targets moved. ``weight``: the item's whole loss is.
    """
    targets, num_items = torch.tensor(features.T.copy()), len(features)
    eye = torch.eye(num_items, dtype=torch.float64)
    shifts = epsilon * torch.cat([eye, -eye])
    if perturb == "correlation":
        moved, item_weights = targets + targets * shifts[:, None, :], eye.new_ones(num_items)
    else:
        moved, item_weights = targets, 1 + shifts
    steps = {round(time / lr): time for time in times}
    run = descend(weights.repeat(2 * num_items), moved, item_weights, lr=lr, num_steps=max(steps))
    found = {}
    for step, now in enumerate(run):
        if step in steps:
            up, down = item_losses(now, targets).chunk(2)
            found[steps[step]] = ((up - down) / (2 * epsilon)).numpy()
    return found


STARTS = {
    "the default tree, one start for all": (DEFAULT, 1e-3, (4, 10, 18, 30, 40)),
    "the default tree, ties whose starts differ": (DEFAULT, np.geomspace(1e-2, 1e-4, 8)[::-1], (4, 10, 18, 30, 40)),
    "a tree whose modes all differ": (Hierarchy(UNEVEN).features, 1e-3, (4, 9, 15, 25, 30)),
    "the same, starts that differ": (Hierarchy(UNEVEN).features, np.geomspace(1e-4, 1e-2, 6), (4, 9, 15, 25, 30)),
    "a start that is not small": (Hierarchy(UNEVEN).features, 0.2, (0.5, 2, 5, 10)),
    "two equal items": (REPEATED, 1e-3, (2, 5, 8, 14)),
}


@pytest.mark.parametrize("case", STARTS)
def test_influence_is_that_of_gradient_descent_with_a_perturbed_correlation(case):
    features, initial, times = STARTS[case]
    modes = modes_of(features)
    weights = aligned_weights(modes, len(features) + 1, initial=initial, generator=generator())
    for time, want in measured_influence(weights, features, times, lr=0.0025).items():
        assert relative(closed_form_influence(modes, initial, time=time), want) < 0.01, time


def test_influence_of_a_common_start_tends_to_the_daleckii_krein_formula():
    """Plain loops over the formula with divided differences of f."""
    modes, initial, time = modes_of(DEFAULT), 1e-8, 75.0
    s, u, v = modes.strengths, modes.left, modes.right
    f = strength_at(s, initial, time=time, num_items=8)
    shift = 1e-5
    up, down = (strength_at(s + by, initial, time=time, num_items=8) for by in (shift, -shift))
    slope = (up - down) / (2 * shift)
    assert 0.3 < f[-1] < 0.99
    want = np.empty((8, 8))
    for item in range(8):
        p = u.T @ np.outer(DEFAULT[item], np.eye(8)[item]) @ v
        change = np.empty((8, 8))
        for j, k in np.ndindex(8, 8):
            divided = slope[j] if s[j] == s[k] else (f[j] - f[k]) / (s[j] - s[k])
            change[j, k] = divided * (p[j, k] + p[k, j]) / 2 + (f[j] + f[k]) / (s[j] + s[k]) * (p[j, k] - p[k, j]) / 2
        errors = DEFAULT.T - u * f @ v.T
        want[item] = -(errors * (u @ change @ v.T)).sum(axis=0)
    assert relative(closed_form_influence(modes, initial, time=time), want) < 1e-3


@pytest.mark.parametrize("seed", [100, 102])
def test_influence_from_a_small_gaussian_start_is_near(seed):
    weights = gaussian_weights(8, 15, hidden=32, std=1e-3, generator=generator(seed))
    initial, modes = initial_strengths(weights, modes_of(DEFAULT))
    want = measured_influence(weights, DEFAULT, (12, 16, 20, 28, 36, 44, 52), lr=0.02)
    got = {time: closed_form_influence(modes, initial, time=time) for time in want}
    assert relative(np.stack(list(got.values())), np.stack(list(want.values()))) < 0.12
    # Starts of their own are worth having.
    common = [closed_form_influence(modes, np.exp(np.log(initial).mean()), time=time) for time in want]
    assert relative(np.stack(common), np.stack(list(want.values()))) > 1.1 * relative(
        np.stack(list(got.values())), np.stack(list(want.values()))
    )


def test_the_full_weight_of_an_item_has_the_same_pattern_and_a_smaller_size():
    modes = modes_of(DEFAULT)
    weights = aligned_weights(modes, 10, initial=1e-3, generator=generator())
    ratios = []
    for time, want in measured_influence(weights, DEFAULT, (4, 10, 18, 24), lr=0.01, perturb="weight").items():
        got = closed_form_influence(modes, 1e-3, time=time)
        assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.99
        ratios.append(np.linalg.norm(got) / np.linalg.norm(want))
    np.testing.assert_allclose(ratios, [1.01, 1.17, 1.28, 1.38], atol=0.03)


def test_more_weight_on_an_item_helps_it_and_its_sibling_until_they_come_apart():
    modes = modes_of(DEFAULT)
    for time, sibling in ((5.0, -1), (12.0, -1), (20.0, 1)):
        influence = closed_form_influence(modes, 1e-3, time=time)
        assert (np.diag(influence) < 0).all()
        assert np.sign(influence[0, 1]) == sibling


def test_the_sign_between_cousins_flips_between_stages():
    """Cousins help each other while they are still one kind, and hinder each other while they come apart."""
    modes = modes_of(DEFAULT)
    cousins = [closed_form_influence(modes, 1e-3, time=time)[0, 2] for time in (6.0, 16.0)]
    assert cousins[0] < 0 < cousins[1]


def test_influence_stays_finite_for_ever():
    modes = modes_of(Hierarchy(UNEVEN).features)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for initial in (1e-12, np.geomspace(1e-14, 1e-2, 6)):
            late = closed_form_influence(modes, initial, time=1e5)
            np.testing.assert_allclose(late, 0, atol=1e-8)


def test_what_has_no_meaning_is_refused():
    modes = modes_of(DEFAULT)
    for initial in (0.0, -1e-3, float("nan"), np.full(7, 1e-3)):
        with pytest.raises(InputError, match="initial"):
            closed_form_influence(modes, initial, time=1.0)
    with pytest.raises(InputError, match="time"):
        closed_form_influence(modes, 1e-3, time=-1.0)
