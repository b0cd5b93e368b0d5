import numpy as np
import pytest

from stagewise.influence.group_influence import sample_influence
from stagewise.influence.split import PARTS, Centering, split


def draws(seed, chains=4, shift=0.0):
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(chains, 9, 1)) + 0.5 * generator.normal(size=(chains, 1, 5))
    return generator.normal(size=(chains, 9, 5)) + common + shift


def loop(current, reference, centering):
    """``[2, part, sample, sample]``: influence and its correlation, pair by pair."""
    parts = split(current, reference, centering=centering).parts()
    result = np.zeros((2, len(PARTS), 5, 5))
    for part, name in enumerate(PARTS):
        for i, j in np.ndindex(5, 5):
            spread = np.sqrt(parts["total"][i, i] * parts["total"][j, j])
            result[:, part, i, j] = -parts[name][i, j], -parts[name][i, j] / spread
    return result


@pytest.mark.parametrize("centering", list(Centering))
@pytest.mark.parametrize("past", [None, draws(2, shift=1.0)])
def test_sample_influence_and_its_jackknife_equal_a_loop_that_leaves_one_chain_out(centering, past):
    current = draws(1)
    got = sample_influence(current, past, centering=centering)
    want = loop(current, past, centering)
    left_out = []
    for skip in range(4):
        rows = [row for row in range(4) if row != skip]
        left_out.append(loop(current[rows], None if past is None else past[rows], centering))
    errors = np.sqrt(3 / 4 * np.square(np.array(left_out) - np.mean(left_out, axis=0)).sum(axis=0))
    for index, name in enumerate(("bif", "bif_correlation")):
        np.testing.assert_allclose(got[name], want[index], atol=1e-12)
        np.testing.assert_allclose(got[f"{name}_se"], errors[index], atol=1e-12)
    assert errors[:, PARTS.index("total")].max() > 1e-3


@pytest.mark.parametrize(("chains", "centering"), [(1, Centering.chain), (2, Centering.step)])
def test_too_few_chains_have_no_error(chains, centering):
    got = sample_influence(draws(1, chains=chains), None, centering=centering)
    assert np.isnan(got["bif_se"]).all()
    assert np.isnan(got["bif_correlation_se"]).all()
    assert np.isfinite(got["bif"]).all()


def test_a_constant_loss_has_zero_influence_correlation_and_error():
    current = draws(1)
    current[..., 2] = 0.0
    with np.errstate(all="raise"):
        got = sample_influence(current, None)
    for values in got.values():
        assert not values[:, 2].any()
        assert np.isfinite(values).all()
