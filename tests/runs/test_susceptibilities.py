import numpy as np
import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.split import Centering
from stagewise.runs.susceptibilities import principal_responses, standardized_columns, susceptibilities

COUNTS = {"a": 4, "b": 3}
NUM_LOSSES = 12


def draws_of(seed, num_chains=3):
    random = np.random.default_rng(seed)
    samples = random.normal(size=(num_chains, 5, 2)).cumsum(axis=1)
    groups = random.normal(size=(num_chains, 5, 4)) + samples[:, :, [0, 1, 0, 1]]
    return GroupDraws(10, tuple(range(num_chains)), samples, groups)


DRAWS = {"layer0.head0": draws_of(0), "layer1.head0": draws_of(1)}


def looped(own, row, count, relative, centering):
    """Returns minus the covariance, one draw after the other."""
    pairs = []
    for chain in range(len(own.samples)):
        for draw in range(5):
            whole = sum(own.samples[chain, draw]) / NUM_LOSSES
            group = sum(own.groups[chain, draw, 2 * row : 2 * row + 2]) / count
            pairs.append((chain, draw, whole, group - whole if relative else group))
    label = {Centering.pooled: lambda pair: 0, Centering.chain: lambda pair: pair[0], Centering.step: lambda p: p[1]}
    total = 0.0
    for pair in pairs:
        alike = [other for other in pairs if label[centering](other) == label[centering](pair)]
        total += (pair[2] - np.mean([p[2] for p in alike])) * (pair[3] - np.mean([p[3] for p in alike]))
    return -total / len(pairs)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("centering", Centering)
def test_the_response_is_minus_the_covariance_of_a_plain_loop(centering, relative):
    found = susceptibilities(DRAWS, COUNTS, NUM_LOSSES, relative=relative, centering=centering)
    for name, own in DRAWS.items():
        for row, (group, count) in enumerate(COUNTS.items()):
            expected = looped(own, row, count, relative, centering)
            assert found["response"].sel(group=group, component=name).item() == pytest.approx(expected, rel=1e-12)


def test_errors_are_the_jackknife_over_chains():
    found = susceptibilities(DRAWS, COUNTS, NUM_LOSSES)
    own = DRAWS["layer1.head0"]
    left = [
        looped(own.only(tuple(c for c in range(3) if c != skip)), 1, 3, False, Centering.pooled) for skip in range(3)
    ]
    expected = np.sqrt(2 / 3 * sum((value - np.mean(left)) ** 2 for value in left))
    assert found["response_se"].sel(group="b", component="layer1.head0").item() == pytest.approx(expected, rel=1e-12)


def test_one_chain_has_no_error():
    found = susceptibilities({"all": draws_of(0, num_chains=1)}, COUNTS, NUM_LOSSES)
    assert np.isfinite(found["response"]).all()
    assert np.isnan(found["response_se"]).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"draws": {}}, "got no component"),
        ({"counts": {"a": 4}}, "draws of 2 groups"),
        ({"counts": {"a": 4, "b": 0}}, "counts"),
        ({"counts": {}}, "counts"),
        ({"num_losses": 0}, "num_losses"),
    ],
)
def test_invalid_input_is_refused(changed, words):
    with pytest.raises(InputError, match=words):
        susceptibilities(**{"draws": DRAWS, "counts": COUNTS, "num_losses": NUM_LOSSES, **changed})


def table(values):
    values = np.asarray(values, dtype=float)
    names = {"group": [f"g{row}" for row in range(len(values))], "component": [f"c{k}" for k in range(values.shape[1])]}
    return xr.DataArray(values, names, ("group", "component"))


def test_columns_are_standardised_whatever_their_height_and_a_flat_one_is_zero():
    base = np.array([1.0, 2.0, 6.0])
    found = standardized_columns(table(np.stack([base, -1e6 * base, np.full(3, 0.1)], axis=1)))
    expected = (base - 3) / np.sqrt(14 / 3)
    np.testing.assert_allclose(found.values, np.stack([expected, -expected, np.zeros(3)], axis=1), atol=1e-12)
    xr.testing.assert_allclose(standardized_columns(table(np.stack([base, base**2], axis=1)).T)[:, 0], found[:, 0])


def test_principal_components_are_eigenvectors_of_the_correlation_matrix_of_components():
    values = np.random.default_rng(3).normal(size=(7, 4)) * [1, 10, 0.1, 5]
    found = principal_responses(table(values))
    power, vectors = np.linalg.eigh(np.corrcoef(values.T))
    np.testing.assert_allclose(found.shares.values, power[::-1] / 4, rtol=1e-10)
    overlap = np.abs(np.sum(found.loadings.values * vectors[:, ::-1], axis=0))
    np.testing.assert_allclose(overlap, 1, rtol=1e-10)
    assert (found.loadings.values[np.abs(found.loadings.values).argmax(axis=0), range(4)] > 0).all()
    scores = standardized_columns(table(values)).values @ found.loadings.values
    np.testing.assert_allclose(found.scores.values, scores, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "words"),
    [([[1.0, 2.0]], "groups"), ([[1.0], [np.nan]], "values"), ([[1.0, 2.0], [1.0, 2.0]], "flat")],
)
def test_a_matrix_without_principal_components_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        principal_responses(table(values))
