import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.interventions.strata import Strata


def _masks(num=200, seed=0):
    rng = np.random.default_rng(seed)
    return {"a": rng.random(num) < 0.3, "b": rng.random(num) < 0.2, "c": rng.random(num) < 0.5}


def _by_hand(masks, weights):
    """Normalised weight of each sample, by plain loops."""
    raw = []
    for sample in range(len(masks["a"])):
        weight = 1.0
        for name, mask in masks.items():
            if mask[sample]:
                weight *= weights.get(name, 1.0)
        raw.append(weight)
    return [weight * len(raw) / sum(raw) for weight in raw]


@pytest.mark.parametrize("weights", [{"a": 4.0}, {"a": 0.25, "b": 3.0}, {"c": 0.0, "a": 2.0}, {}])
def test_weights_are_products_over_groups_with_a_mean_of_1(weights):
    masks = _masks()
    strata = Strata(masks)
    rho = strata.rho(weights)
    expected = _by_hand(masks, weights)
    np.testing.assert_allclose(rho[strata.labels], expected, rtol=1e-12)
    assert np.mean(rho[strata.labels]) == pytest.approx(1.0, abs=1e-12)
    for name, factor in strata.group_rho(rho).items():
        assert factor == pytest.approx(np.mean(np.array(expected)[masks[name]]))
    moved = np.mean([max(weight - 1.0, 0.0) for weight in expected])
    assert strata.moved(rho) == pytest.approx(moved)
    assert moved == pytest.approx(np.mean([max(1.0 - weight, 0.0) for weight in expected]))


def test_samples_share_a_stratum_where_they_share_all_groups():
    masks = _masks()
    strata = Strata(masks)
    rows = np.stack(list(masks.values()), axis=1)
    np.testing.assert_array_equal(strata.members[strata.labels], rows)
    assert len(strata) == len(np.unique(rows, axis=0)) == 8
    np.testing.assert_array_equal(strata.counts, np.bincount(strata.labels))
    words = {strata.words(stratum) for stratum in range(len(strata))}
    assert len(words) == 8
    assert {"in no group", "in 'a'", "in 'a' and 'c'"} < words


def test_equal_weights_are_exactly_1():
    masks = {"a": np.arange(7) < 3, "b": np.arange(7) >= 3}
    assert (Strata(masks).rho({"a": 0.3, "b": 0.3}) == 1.0).all()


def test_tokens_without_a_loss_are_left_out():
    rng = np.random.default_rng(1)
    mask, present = rng.random((6, 9)) < 0.4, rng.random((6, 9)) < 0.8
    strata = Strata({"a": mask}, present)
    assert strata.counts.sum() == present.sum()
    assert strata.group_rho(strata.rho({"a": 3.0}))["a"] == pytest.approx(
        3.0 * present.sum() / (present.sum() + 2 * (mask & present).sum())
    )


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({}, "no groups"),
        ({"a": np.zeros(4, dtype=bool)}, "'a' without a sample"),
        ({"a": np.ones(4)}, "expected bool"),
        ({"a": np.ones(4, dtype=bool), "b": np.ones(3, dtype=bool)}, "'b' as bool .3."),
    ],
)
def test_bad_groups_are_refused(masks, words):
    with pytest.raises(InputError, match=words):
        Strata(masks)


def test_weights_that_leave_nothing_are_refused():
    strata = Strata({"a": np.arange(4) < 2, "b": np.arange(4) >= 2})
    assert strata.rho({"a": 0.0}).tolist() != [1.0, 1.0]
    with pytest.raises(InputError, match="whose sum over the samples is 0"):
        strata.rho({"a": 0.0, "b": 0.0})
    with pytest.raises(InputError, match="sum over the samples is inf"):
        Strata({"a": np.ones(4, dtype=bool), "b": np.arange(4) < 2}).rho({"a": 1e200, "b": 1e200})
