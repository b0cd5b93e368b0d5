"""Learning coefficient and its localized share, compared with closed forms, quadrature and plain loops."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from stagewise.errors import InputError
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.influence.llc import (
    MeanLosses,
    learning_coefficients,
    llc,
    llc_remarks,
    loss_counts,
    mean_losses_of,
    readable_share,
)
from stagewise.influence.uncertainty import jackknife_error


def gaussian_draws(curvatures, nbeta, localization, *, chains=4, draws=20_000, slope=0.0, seed=0):
    """Independent draws of a localized quadratic around w* = 0: ``[chain, draw, weight]``."""
    curvatures = np.asarray(curvatures, dtype=np.float64)
    precision = nbeta * curvatures + localization
    noise = np.random.default_rng(seed).standard_normal((chains, draws, len(curvatures)))
    return noise / np.sqrt(precision) - nbeta * slope / precision


def loss_of(draws, curvatures, slope=0.0):
    return (np.asarray(curvatures) * draws**2 / 2 + slope * draws).sum(axis=-1)[..., None]


@pytest.mark.parametrize("localization", [1e-3, 30.0, 100.0, 2000.0])
def test_a_quadratic_has_half_the_directions_not_held_by_localization(localization):
    nbeta, curvatures = 100.0, np.array([1.0, 1.0, 0.3, 5.0, 0.0])
    losses = loss_of(gaussian_draws(curvatures, nbeta, localization), curvatures) + 2.5
    found = learning_coefficients(losses, np.array([2.5]), nbeta=nbeta)
    held = nbeta * curvatures / (nbeta * curvatures + localization)
    share = 1 - (held**2).sum() / held.sum()
    error = np.sqrt((held**2).sum() / 2 / 80_000)
    assert abs(found.value[0] - held.sum() / 2) < 4 * error
    assert found.localized_share[0] == pytest.approx(share, abs=0.02)
    # Errors over few chains are uncertain.
    assert 0.05 * error < found.error[0] < 3 * error
    if localization == 1e-3:
        assert found.value[0] == pytest.approx(4 / 2, rel=0.02)


def test_a_share_of_one_half_halves_the_coefficient_and_the_correction_restores_it():
    """Ten directions at g = nbeta lam: 2.5 in place of 5."""
    losses = loss_of(gaussian_draws(np.ones(10), 50.0, 50.0), np.ones(10))
    found = learning_coefficients(losses, np.zeros(1), nbeta=50.0)
    assert found.value[0] == pytest.approx(2.5, rel=0.02)
    assert found.localized_share[0] == pytest.approx(0.5, abs=0.02)
    assert found.value[0] / (1 - found.localized_share[0]) == pytest.approx(5.0, rel=0.03)


def moments(nbeta, localization, power=4):
    """Mean and variance of |w|^power / 2 in one localized direction, by quadrature."""

    def density(w):
        return np.exp(-nbeta * abs(w) ** power / 2 - localization * w**2 / 2)

    top = 12 / max(np.sqrt(localization), nbeta ** (1 / power))
    norm, first, second = (
        quad(lambda w, k=k: (abs(w) ** power / 2) ** k * density(w), 0, top, epsabs=0, epsrel=1e-11, limit=500)[0]
        for k in (0, 1, 2)
    )
    return first / norm, second / norm - (first / norm) ** 2


@pytest.mark.parametrize(("localization", "power"), [(0.0, 4), (0.0, 6), (5.0, 4), (200.0, 4), (40.0, 6)])
def test_the_share_is_the_slope_of_the_coefficient_in_nbeta_for_any_loss(localization, power):
    """No quadratic: d log / d log nbeta by a finite difference of quadratures, and from the moments of one of them."""
    nbeta, small = 80.0, 1e-4
    mean, variance = moments(nbeta, localization, power)
    ends = [
        np.log(nbeta * np.exp(item) * moments(nbeta * np.exp(item), localization, power)[0]) for item in (small, -small)
    ]
    slope = (ends[0] - ends[1]) / (2 * small)
    assert 1 - nbeta * variance / mean == pytest.approx(slope, abs=1e-6)
    # Draws with exactly these moments, two for each chain.
    spread = np.sqrt(variance)
    losses = np.array([[mean - spread, mean + spread]] * 2)[..., None]
    found = learning_coefficients(losses, np.zeros(1), nbeta=nbeta)
    assert found.localized_share[0] == pytest.approx(slope, abs=1e-6)
    if localization == 0:
        assert found.value[0] == pytest.approx(1 / power, rel=1e-6)
        assert found.localized_share[0] == pytest.approx(0, abs=1e-6)


def test_the_share_of_a_group_is_its_own_slope_in_nbeta():
    """Two directions, each with its own group; the first is stiff, the second soft."""
    nbeta, localization, curvatures = 100.0, 40.0, np.array([8.0, 0.2])
    draws = gaussian_draws(curvatures, nbeta, localization)
    parts = curvatures * draws**2 / 2
    # Two losses, so L is half their sum.
    losses = np.concatenate([parts.sum(axis=-1, keepdims=True) / 2, parts], axis=-1)
    found = learning_coefficients(losses, np.zeros(3), nbeta=2 * nbeta)
    held = nbeta * curvatures / (nbeta * curvatures + localization)
    np.testing.assert_allclose(found.value[1:], held, rtol=0.05)
    np.testing.assert_allclose(found.localized_share[1:], 1 - held, atol=0.03)
    assert found.value[0] == pytest.approx(held.sum() / 2, rel=0.03)


def test_errors_are_those_of_chain_means_and_the_jackknife():
    generator = np.random.default_rng(1)
    losses, anchor = 2 + generator.gamma(2.0, size=(5, 7, 3)), np.array([1.0, 0.5, 1.5])
    found = learning_coefficients(losses, anchor, nbeta=3.0)
    for column in range(3):
        chains = [3 * np.mean([loss - anchor[column] for loss in chain[:, column]]) for chain in losses]
        assert found.value[column] == pytest.approx(np.mean(chains))
        assert found.error[column] == pytest.approx(np.std(chains, ddof=1) / np.sqrt(5))
    want = jackknife_error(
        lambda some: learning_coefficients(losses[some], anchor, nbeta=3.0).localized_share, len(losses)
    )
    np.testing.assert_allclose(found.localized_share_error, want)


def test_correlated_draws_do_not_raise_the_share():
    """Chains that do not move: each is a single draw, and the variance is that between chains."""
    nbeta, curvatures, repetitions = 100.0, np.ones(40), 400
    draws = gaussian_draws(curvatures, nbeta, 100.0, chains=4 * repetitions, draws=1)
    losses = np.repeat(loss_of(draws, curvatures), 6, axis=1).reshape(repetitions, 4, 6, 1)
    shares = [learning_coefficients(loss, np.zeros(1), nbeta=nbeta).localized_share[0] for loss in losses]
    error = np.std(shares) / np.sqrt(repetitions)
    assert abs(np.mean(shares) - 0.5) < 4 * error + 0.02
    assert error < 0.02


def test_a_slope_makes_the_coefficient_negative_and_its_share_unknown():
    losses = loss_of(gaussian_draws([0.1], 100.0, 50.0, slope=1.0), [0.1], slope=1.0)
    found = learning_coefficients(losses, np.zeros(1), nbeta=100.0)
    exact = 0.5 * 10 / 60 - 100 * (100 / 60) + 100 * 0.1 / 2 * (100 / 60) ** 2
    assert found.value[0] == pytest.approx(exact, rel=0.01)
    assert np.isnan(found.localized_share[0])


def test_the_negative_control_has_coefficient_zero_and_share_one():
    losses = loss_of(gaussian_draws([1.0, 2.0], 0.0, 50.0, draws=50), [1.0, 2.0])
    found = learning_coefficients(losses, np.zeros(1), nbeta=0.0)
    assert (found.value[0], found.error[0], found.localized_share[0]) == (0, 0, 1)
    groups = Groups({}, [True] * 3)
    control = llc(np.repeat(losses, 2, axis=2), np.zeros(2), groups, nbeta=0.0)
    assert llc_remarks(control, nbeta=0.0) == []


def test_one_chain_has_no_error():
    found = learning_coefficients(np.ones((1, 4, 2)), np.zeros(2), nbeta=2.0)
    assert found.value.tolist() == [2, 2]
    assert np.isnan(found.error).all()
    assert np.isnan(found.localized_share_error).all()


@pytest.mark.parametrize("shapes", [((0, 3, 1), (1,)), ((2, 3, 2), (1,)), ((2, 3), (3,))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(InputError, match="expected \\[chain, draw, curve\\]"):
        learning_coefficients(np.zeros(shapes[0]), np.zeros(shapes[1]), nbeta=1.0)


MASK = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 0, 0]], dtype=bool)
GROUPS = Groups({"b": np.array([1, 0, 1, 1], dtype=bool), "a": MASK & (np.arange(3) < 2)}, MASK)


def test_means_are_over_all_losses_and_over_those_of_each_group():
    losses = np.where(MASK, np.random.default_rng(0).normal(size=(2, 5, *MASK.shape)), 0.0)
    want = np.stack([losses[..., mask].mean(axis=-1) for mask in (MASK, *GROUPS.masks)], axis=-1)
    np.testing.assert_allclose(MeanLosses(GROUPS)(torch.from_numpy(losses)).numpy(), want)
    np.testing.assert_allclose(loss_counts(GROUPS), [8, 5, 6])
    # As in a probe, with bins after the groups.
    joint = np.concatenate([GROUPS.sums(losses), losses.sum(axis=-1)], axis=-1)
    np.testing.assert_allclose(
        mean_losses_of(GroupDraws(1, (0, 1), losses.sum(axis=-1), joint), GROUPS), want, atol=1e-12
    )


def test_variables_have_names_and_flag_a_dominant_localization():
    generator = np.random.default_rng(2)
    losses = 1 + generator.gamma(3.0, size=(4, 50, 3)) / 10
    found = llc(losses, np.ones(3), GROUPS, nbeta=10.0)
    assert found["group"].values.tolist() == ["b", "a"]
    for variable in found.data_vars.values():
        assert variable.attrs["units"] == "1"
        assert variable.attrs["long_name"]
    assert int(found["llc_chains"]) == 4
    assert int(found["llc_localized"]) == 0
    assert llc_remarks(found, nbeta=10.0) == []
    # A hundredth of the variance: losses hardly fluctuate compared with their rise.
    localized = llc(1.3 + (losses - 1.3) / 10, np.ones(3), GROUPS, nbeta=10.0)
    assert int(localized["llc_localized"]) == 1
    (words,) = llc_remarks(localized, nbeta=10.0)
    assert "localized share of 0.9" in words
    assert "lower probe.llc.localization" in words
    (words,) = llc_remarks(llc(losses, np.full(3, 5.0), GROUPS, nbeta=10.0), nbeta=10.0)
    assert "not above 0: the loss slopes" in words
    (words,) = llc_remarks(llc(losses * np.nan, np.ones(3), GROUPS, nbeta=10.0), nbeta=10.0)
    assert "not finite" in words


def test_a_share_far_outside_of_0_to_1_is_stored_but_not_shown():
    """Chains that wander: the variance of the loss is far larger than its rise explains."""
    rises = np.random.default_rng(0).normal(0.05, 1.0, (4, 500, 1)) * np.ones(3)
    found = llc(1.0 + rises, np.ones(3), GROUPS, nbeta=10.0)
    share = float(found["llc_localized_share"])
    assert share < -40
    assert np.isnan(readable_share(found["llc_localized_share"].values))
    assert int(found["llc_localized"]) == 0
    (words,) = llc_remarks(found, nbeta=10.0)
    assert words.startswith(f"got no localized share ({share:.2g}, outside of -0.2 to 1.2)")
    np.testing.assert_array_equal(
        readable_share([-42.0, -0.2, 0.4, 1.0, 1.3, np.nan]), [np.nan, -0.2, 0.4, 1.0, np.nan, np.nan]
    )
