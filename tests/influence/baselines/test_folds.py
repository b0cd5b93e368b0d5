import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.influence.baselines.folds import assign_folds, pairs_between
from stagewise.influence.groups import Groups


def random_counts(seed, num_groups=6, num_samples=20, chance=0.3):
    """Groups from a single sample to many."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 9, (num_groups, num_samples)) * (
        generator.random((num_groups, num_samples)) < chance
    )
    for row, size in enumerate((1, 1, 2, 3)):
        counts[row] = 0
        counts[row, generator.choice(num_samples, size, replace=False)] = 4
    return counts


@pytest.mark.parametrize("num_folds", [2, 4, 7])
@pytest.mark.parametrize("seed", range(40))
def test_groups_with_a_pair_keep_one(seed, num_folds):
    counts = random_counts(seed)
    totals = counts.sum(axis=1)
    has_pairs = np.multiply.outer(totals, totals) - counts @ counts.T > 0
    folds = assign_folds(counts, num_folds)
    assert np.array_equal(pairs_between(counts, folds) > 0, has_pairs)
    assert np.array_equal(folds < 0, counts.sum(axis=0) == 0)
    assert np.array_equal(np.unique(folds[folds >= 0]), np.arange(folds.max() + 1))


def test_pairs_equal_a_plain_loop():
    counts = random_counts(3)
    folds = assign_folds(counts, 3)
    want = np.zeros((6, 6), dtype=int)
    for i, j in np.ndindex(20, 20):
        if folds[i] >= 0 and folds[j] >= 0 and folds[i] != folds[j]:
            want += np.multiply.outer(counts[:, i], counts[:, j])
    assert np.array_equal(pairs_between(counts, folds), want)


def test_folds_have_the_requested_number_similar_sizes_and_a_share_of_each_group():
    generator = np.random.default_rng(0)
    counts = generator.poisson(3.0, (11, 64))
    counts[0] = np.arange(64) < 8  # a rare one
    folds = assign_folds(counts, 4)
    assert folds.max() == 3
    assert 12 <= np.bincount(folds).min() <= np.bincount(folds).max() <= 20
    by_fold = np.stack([counts[:, folds == fold].sum(axis=1) for fold in range(4)], axis=1)
    assert by_fold[0].tolist() == [2, 2, 2, 2]
    assert (by_fold.max(axis=1) < 1.5 * by_fold.min(axis=1)).all()


@pytest.mark.parametrize("num_folds", [None, 5, 100])
def test_one_fold_per_sample_gives_all_pairs_in_different_samples(num_folds):
    counts = np.array([[1, 2, 0, 0, 3], [0, 1, 1, 4, 0]])
    folds = assign_folds(counts, num_folds)
    assert folds.tolist() == [0, 1, 2, 3, 4]
    masks = np.array([[[place < number for place in range(4)] for number in row] for row in counts])
    groups = Groups({"a": masks[0], "b": masks[1]}, np.ones((5, 4), dtype=bool))
    assert np.array_equal(pairs_between(counts, folds), groups.num_pairs)


def test_sole_samples_of_groups_are_separated_into_as_many_folds_as_needed():
    counts = np.concatenate([np.eye(6, 30), np.ones((1, 30))]).astype(int)
    folds = assign_folds(counts, 4)
    assert len(set(folds[:6])) == 6
    assert folds.max() == 5


def test_pairs_that_four_folds_cannot_separate_get_a_fifth():
    """Ten groups, one per pair of five samples, which must all be in different folds."""
    pairs = [(i, j) for i in range(5) for j in range(i)]
    counts = np.zeros((11, 12), dtype=int)
    counts[10] = 1
    for row, pair in enumerate(pairs):
        counts[row, list(pair)] = 1
    folds = assign_folds(counts, 4)
    assert len(set(folds[:5])) == 5


@pytest.mark.parametrize("num_folds", [1, 0, -2])
def test_fewer_than_two_folds_are_refused(num_folds):
    with pytest.raises(InputError, match=r"got num_folds=.*; expected 2 or more"):
        assign_folds(np.ones((2, 4), dtype=int), num_folds)
