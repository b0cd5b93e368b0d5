"""Influence of a sample on the mean loss of the others, and its error, equal those from draws of that mean."""

import numpy as np
import pytest

from stagewise.influence.group_influence import sample_influence
from stagewise.influence.split import PARTS, Centering
from stagewise.influence.uncertainty import jackknife_error

WITHIN, TOTAL = PARTS.index("within"), PARTS.index("total")


def draws(seed, samples=5):
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(4, 12, 1))
    return common * generator.normal(size=samples) + generator.normal(size=(4, 12, samples))


def test_sample_bif_is_minus_the_covariance_with_the_mean_of_the_others():
    current = draws(0)
    found = sample_influence(current, None)

    def by_hand(chains):
        pooled = current[chains].reshape(-1, 5)
        return np.array(
            [-np.cov(pooled[:, row], np.delete(pooled, row, axis=1).mean(axis=1), ddof=0)[0, 1] for row in range(5)]
        )

    np.testing.assert_allclose(found["sample_bif"][TOTAL], by_hand([0, 1, 2, 3]), rtol=1e-12)
    np.testing.assert_allclose(found["sample_bif_se"][TOTAL], jackknife_error(by_hand, 4), rtol=1e-10)


@pytest.mark.parametrize("centering", list(Centering))
def test_every_part_is_the_row_mean_of_the_matrix(centering):
    found = sample_influence(draws(1), draws(2), centering=centering)
    for part in range(len(PARTS)):
        rows = [np.delete(row, place).mean() for place, row in enumerate(found["bif"][part])]
        np.testing.assert_allclose(found["sample_bif"][part], rows, rtol=1e-10, atol=1e-14)
    assert found["bif_se"].shape == found["bif"].shape


def test_a_single_sample_has_no_sample_bif_and_a_single_chain_no_error():
    assert np.isnan(sample_influence(draws(3, samples=1), None)["sample_bif"]).all()
    found = sample_influence(draws(3)[:1], None)
    assert np.isnan(found["sample_bif_se"]).all()
    assert np.isfinite(found["sample_bif"]).all()
