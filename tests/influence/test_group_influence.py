import tracemalloc

import numpy as np
import pytest

from stagewise.influence.group_influence import group_influence
from stagewise.influence.groups import Groups
from stagewise.influence.split import PARTS, Centering, split

RNG = np.random.default_rng(0)
PRESENT = RNG.random((6, 3)) < 0.9
MASKS = {"a": RNG.random((6, 3)) < 0.5, "b": RNG.random((6, 3)) < 0.6, "c": np.arange(6) > 2}
GROUPS = Groups(MASKS, PRESENT)
ROWS = [np.argwhere((mask if mask.ndim == 2 else mask[:, None]) & PRESENT) for mask in MASKS.values()]


def losses(seed, chains=4, num=9, shift=0.0):
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(chains, num, 1, 1)) + 0.5 * generator.normal(size=(chains, 1, 6, 3))
    return np.where(PRESENT, generator.normal(size=(chains, num, 6, 3)) + common + shift, 0.0)


def loop(current, reference, centering):
    """Plain loop over pairs of token losses, from the full covariance of the tokens."""
    flat = [None if loss is None else loss.reshape(*loss.shape[:2], -1) for loss in (current, reference)]
    parts = split(*flat, centering=centering).parts()
    result = np.zeros((len(PARTS), 3, 3))
    for part, name in enumerate(PARTS):
        for row, left in enumerate(ROWS):
            for column, right in enumerate(ROWS):
                pairs = [parts[name][3 * i + p, 3 * j + q] for i, p in left for j, q in right if i != j]
                result[part, row, column] = -np.mean(pairs)
    return result


@pytest.mark.parametrize("centering", list(Centering))
@pytest.mark.parametrize("past", [None, losses(2, shift=1.0)])
def test_group_influence_and_its_jackknife_equal_a_loop_over_pairs_of_tokens(centering, past):
    current = losses(1)
    got = group_influence(
        GROUPS.sums(current), None if past is None else GROUPS.sums(past), GROUPS, centering=centering
    )
    np.testing.assert_allclose(got["group_bif"], loop(current, past, centering), atol=1e-12)
    left_out = []
    for skip in range(4):
        rows = [row for row in range(4) if row != skip]
        left_out.append(loop(current[rows], None if past is None else past[rows], centering))
    error = np.sqrt(3 / 4 * np.square(np.array(left_out) - np.mean(left_out, axis=0)).sum(axis=0))
    np.testing.assert_allclose(got["group_bif_se"], error, atol=1e-12)
    known = error > 1e-12
    np.testing.assert_allclose(got["group_bif_z"][known], got["group_bif"][known] / got["group_bif_se"][known])


def correlation_loop(current, reference, centering):
    """Plain loop over pairs of samples, from the full covariance of the group sums."""
    parts = split(current, reference, centering=centering).parts()
    deviation = np.sqrt(np.diag(parts["total"]))
    result = np.zeros((len(PARTS), 3, 3))
    for part, name in enumerate(PARTS):
        for row, column in np.ndindex(3, 3):
            pairs = [
                -parts[name][row * 6 + i, column * 6 + j] / deviation[row * 6 + i] / deviation[column * 6 + j]
                for i, j in np.ndindex(6, 6)
                if i != j and GROUPS.counts[row, i] and GROUPS.counts[column, j]
            ]
            result[part, row, column] = np.mean(pairs)
    return result


@pytest.mark.parametrize("centering", list(Centering))
@pytest.mark.parametrize("past", [None, losses(2, shift=1.0)])
def test_correlations_and_their_jackknife_equal_a_loop_over_pairs_of_samples(centering, past):
    current, past = GROUPS.sums(losses(1)), None if past is None else GROUPS.sums(past)
    got = group_influence(current, past, GROUPS, centering=centering)
    want = correlation_loop(current, past, centering)
    np.testing.assert_allclose(got["group_bif_correlation"], want, atol=1e-12)
    left_out = []
    for skip in range(4):
        rows = [row for row in range(4) if row != skip]
        left_out.append(correlation_loop(current[rows], None if past is None else past[rows], centering))
    error = np.sqrt(3 / 4 * np.square(np.array(left_out) - np.mean(left_out, axis=0)).sum(axis=0))
    np.testing.assert_allclose(got["group_bif_correlation_se"], error, atol=1e-12)
    assert (got["group_bif_correlation_se"][PARTS.index("total")] > 1e-3).all()


def test_parts_that_are_zero_by_construction_have_a_z_score_of_zero():
    got = group_influence(GROUPS.sums(losses(1)), None, GROUPS, centering=Centering.pooled)
    for name in ("drift", "between"):
        assert not got["group_bif_z"][PARTS.index(name)].any()
    assert (np.abs(got["group_bif_z"][PARTS.index("within")]) > 0).all()


@pytest.mark.parametrize("centering", list(Centering))
def test_groups_of_one_sample_are_nan_only_with_themselves_and_raise_no_warning(centering):
    single = Groups({f"g{row}": np.arange(6) == row for row in range(6)}, np.ones(6, dtype=bool))
    current, past = (losses(seed).sum(axis=-1) for seed in (1, 2))
    with np.errstate(all="raise"):
        got = group_influence(single.sums(current), single.sums(past), single, centering=centering)
    samples = split(current, past, centering=centering).parts()
    off = ~np.eye(6, dtype=bool)
    for values in got.values():
        assert np.isnan(values[:, ~off]).all()
        assert np.isfinite(values[:, off]).all()
    for part, name in enumerate(PARTS):
        np.testing.assert_allclose(got["group_bif"][part][off], -samples[name][off], atol=1e-12)


@pytest.mark.parametrize(("chains", "centering"), [(1, Centering.chain), (2, Centering.step)])
def test_errors_and_z_scores_are_unknown_without_enough_chains(chains, centering):
    got = group_influence(GROUPS.sums(losses(1, chains=chains)), None, GROUPS, centering=centering)
    for name in ("group_bif_se", "group_bif_z", "group_bif_correlation_se"):
        assert np.isnan(got[name]).all()
    assert np.isfinite(got["group_bif_correlation"]).all()


def test_no_matrix_over_groups_and_samples_is_formed():
    """The full covariance of 24 groups in 128 samples would take 75 MB; the draws take under a megabyte."""
    groups = Groups({f"g{row}": np.arange(128) % 24 == row for row in range(24)}, np.ones(128, dtype=bool))
    sums = groups.sums(RNG.normal(size=(3, 10, 128)))
    tracemalloc.start()
    group_influence(sums, sums + 1, groups)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * sums.nbytes < 128 * 24 * 128 * 24 * 8
