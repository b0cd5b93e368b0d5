import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.influence.groups import Groups

RNG = np.random.default_rng(0)
PRESENT = np.ones((5, 4), dtype=bool)
PRESENT[2, 3] = False
MASKS = {"a": RNG.random((5, 4)) < 0.5, "b": RNG.random((5, 4)) < 0.4, "rows": np.array([1, 0, 1, 0, 0], dtype=bool)}
LOSS = np.where(PRESENT, RNG.normal(size=(30, 5, 4)), 0)


def loop_pair_mean(matrix, left, right):
    """Mean of a token-by-token matrix over pairs in different samples."""
    left, right = (np.broadcast_to(m if m.ndim == 2 else m[:, None], PRESENT.shape) & PRESENT for m in (left, right))
    values = [matrix[i * 4 + p, j * 4 + q] for i, p in np.argwhere(left) for j, q in np.argwhere(right) if i != j]
    return np.mean(values)


def centred(draws):
    return draws - draws.mean(axis=0)


def test_pair_means_equal_a_loop_over_pairs_of_tokens():
    groups = Groups(MASKS, PRESENT)
    tokens = np.cov(LOSS.reshape(30, -1).T, ddof=0)
    got = groups.pair_means(centred(groups.sums(LOSS)))
    for row, left in enumerate(MASKS.values()):
        for column, right in enumerate(MASKS.values()):
            assert got[row, column] == pytest.approx(loop_pair_mean(tokens, left, right), abs=1e-12)


def test_group_correlations_equal_a_loop_over_pairs_of_samples():
    groups = Groups(MASKS, PRESENT)
    covariance = np.cov(groups.sums(LOSS).T, ddof=0)
    variance = np.diag(covariance)
    got = groups.standardized_pair_means(centred(groups.sums(LOSS)), variance)
    for row in range(3):
        for column in range(3):
            values = [
                covariance[row * 5 + i, column * 5 + j] / np.sqrt(variance[row * 5 + i] * variance[column * 5 + j])
                for i in range(5)
                for j in range(5)
                if i != j and groups.counts[row, i] and groups.counts[column, j]
            ]
            assert got[row, column] == pytest.approx(np.mean(values) if values else 0.0, abs=1e-12)


def test_pair_sums_of_two_quantities_equal_a_loop():
    groups = Groups(MASKS, PRESENT)
    left, right = RNG.normal(size=(2, 4, 3, 15))
    want = np.zeros((3, 3))
    for draw, chain in np.ndindex(4, 3):
        for g, h, n, m in np.ndindex(3, 3, 5, 5):
            if n != m:
                want[g, h] += left[draw, chain, g * 5 + n] * right[draw, chain, h * 5 + m]
    np.testing.assert_allclose(groups.pair_sums(left, right), want)


def test_means_count_each_loss_once():
    groups = Groups(MASKS, PRESENT)
    want = LOSS[:, MASKS["a"] & PRESENT].mean(axis=1)
    np.testing.assert_allclose(groups.means(LOSS)[:, 0], want)


def test_sample_losses_without_tokens():
    masks = {"x": np.array([1, 1, 0], dtype=bool), "y": np.array([0, 1, 1], dtype=bool)}
    groups = Groups(masks, np.ones(3, dtype=bool))
    loss = RNG.normal(size=(2, 7, 3))
    covariance = np.cov(loss.reshape(-1, 3).T, ddof=0)
    got = groups.pair_means(centred(groups.sums(loss).reshape(-1, 6)))
    assert groups.sums(loss).shape == (2, 7, 6)
    assert got[0, 0] == pytest.approx(covariance[0, 1])
    assert got[0, 1] == pytest.approx((covariance[0, 1] + covariance[0, 2] + covariance[1, 2]) / 3)


def test_without_groups_there_is_one_of_everything():
    groups = Groups({}, PRESENT)
    assert groups.names == ("all",)
    assert groups.counts.sum() == PRESENT.sum()


def test_masks_over_samples_cover_only_present_losses():
    assert Groups(MASKS, PRESENT).masks[2, 2].tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "masks",
    [
        {"short": np.ones(4, dtype=bool)},
        {"wide": np.ones((5, 3), dtype=bool)},
        {"nothing": np.zeros((5, 4), dtype=bool)},
        {"one sample": np.arange(5) == 1},
        {"start": (np.arange(20) == 4).reshape(5, 4), "rest of it": (np.arange(20) == 6).reshape(5, 4)},
    ],
)
def test_invalid_groups_are_refused(masks):
    with pytest.raises(InputError, match="expected") as caught:
        Groups(masks, PRESENT)
    assert "\n" not in str(caught.value)


SINGLE = {f"sample {row}": np.arange(5) == row for row in range(5)}


def test_groups_of_one_sample_have_pairs_with_others_and_none_with_themselves():
    groups = Groups(SINGLE, PRESENT)
    np.testing.assert_array_equal(groups.has_pairs, ~np.eye(5, dtype=bool))
    draws = centred(LOSS.sum(axis=2))
    with np.errstate(all="raise"):
        got = groups.pair_means(centred(groups.sums(LOSS)))
    want = draws.T @ draws / 30 / np.outer(PRESENT.sum(axis=1), PRESENT.sum(axis=1))
    np.testing.assert_allclose(got[groups.has_pairs], want[groups.has_pairs], atol=1e-12)
    assert np.isnan(got[~groups.has_pairs]).all()


def test_groups_within_one_sample_have_no_pair_with_each_other():
    halves = [(np.arange(20).reshape(5, 4) // 2) == half for half in (2, 3)]
    groups = Groups({"early": halves[0], "late": halves[1], "rows": MASKS["rows"]}, PRESENT)
    assert groups.has_pairs.tolist() == [[False, False, True], [False, False, True], [True, True, True]]
    got = groups.pair_means(centred(groups.sums(LOSS)))
    tokens = np.cov(LOSS.reshape(30, -1).T, ddof=0)
    np.testing.assert_array_equal(np.isfinite(got), groups.has_pairs)
    assert got[0, 2] == pytest.approx(loop_pair_mean(tokens, halves[0], MASKS["rows"]), abs=1e-12)


def test_correlations_are_nan_without_a_pair_and_zero_where_no_pair_varies():
    groups = Groups(SINGLE, PRESENT)
    draws = centred(groups.sums(LOSS))
    draws[:, 5 * 2 + 2] = 0.0
    with np.errstate(all="raise"):
        got = groups.standardized_pair_means(draws, draws.var(axis=0))
    np.testing.assert_array_equal(np.isnan(got), np.eye(5, dtype=bool))
    assert not got[2, [0, 1, 3, 4]].any()
    whole = np.corrcoef(LOSS.sum(axis=2).T)
    assert got[0, 1] == pytest.approx(whole[0, 1], abs=1e-12)
