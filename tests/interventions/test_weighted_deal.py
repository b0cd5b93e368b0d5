import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.interventions.strata import Strata
from stagewise.interventions.weighted_deal import Deck, Exhausted
from stagewise.loading.order import epoch_order

SIZE = 16


def _strata(num=8_000, seed=0):
    rng = np.random.default_rng(seed)
    return Strata({"a": rng.random(num) < 0.25, "b": rng.random(num) < 0.4})


def _deal(deck, strata, batches, weights_for, size=SIZE):
    return [deck.deal(batch, size, strata.rho(weights_for(batch))) for batch in range(batches)]


def _flat(batches):
    return [sample for batch in batches for sample in batch]


def _base(num, seed, epoch, size=SIZE):
    order = epoch_order(num, seed, epoch).tolist()
    return [order[start : start + size] for start in range(0, num - size + 1, size)]


@pytest.mark.parametrize("weights", [{"a": 3.0}, {"a": 0.0}, {"a": 2.0, "b": 0.5}])
def test_strata_are_drawn_in_proportion_to_their_weights(weights):
    strata = _strata()
    drawn = np.zeros(len(strata))
    for seed in range(5):
        for batch in _deal(Deck(strata, seed, 0), strata, 80, lambda _: weights):
            drawn += np.bincount(strata.labels[batch], minlength=len(strata))
    total = 5 * 80 * SIZE
    expected = strata.shares * strata.rho(weights)
    # Sums of draws without replacement spread less than binomial ones.
    error = np.sqrt(expected * (1 - expected) / total)
    assert (np.abs(drawn / total - expected) <= 4 * error).all()
    assert (np.abs(expected - strata.shares) > 8 * error).any()


def test_no_sample_comes_twice_in_an_epoch():
    strata = _strata(2_000)
    for seed in range(3):
        deck = Deck(strata, seed, 1)
        seen = _flat(_deal(deck, strata, 70, lambda batch: {"a": 3.0} if 10 <= batch < 30 else {"b": 2.0}))
        assert len(set(seen)) == len(seen) == 70 * SIZE


def test_weights_replace_as_few_samples_as_can_be_and_nothing_outside_the_window():
    strata = _strata()
    window = range(40, 140)
    weights = {"a": 3.0, "b": 0.7}
    found = _deal(Deck(strata, 2, 3), strata, 300, lambda batch: weights if batch in window else {})
    replaced = 0
    for batch, (samples, base) in enumerate(zip(found, _base(8_000, 2, 3), strict=False)):
        if batch in window:
            differ = [(new, old) for new, old in zip(samples, base, strict=True) if new != old]
            rho = strata.rho(weights)
            # Only samples that weigh less give way, and only to samples that weigh more.
            assert all(rho[strata.labels[old]] < 1.0 < rho[strata.labels[new]] for new, old in differ)
            replaced += len(differ)
        else:
            assert samples == base
    share = strata.moved(strata.rho(weights))
    total = len(window) * SIZE
    assert abs(replaced / total - share) < 4 * np.sqrt(share * (1 - share) / total)


def test_batches_depend_on_the_weights_until_them_alone():
    strata = _strata()

    def first(weights):
        return _deal(Deck(strata, 0, 0), strata, 60, lambda batch: {"a": 2.0} if batch < 30 else weights)

    one, other = first({"a": 4.0}), first({"b": 4.0})
    assert one[:30] == other[:30]
    assert one[30:] != other[30:]


def test_samples_of_a_stratum_are_equally_likely_in_a_window():
    strata = Strata({"a": np.arange(40) < 16})
    num, counts = 3_000, np.zeros(40)
    for epoch in range(num):
        for batch in _deal(Deck(strata, 0, epoch), strata, 2, lambda batch: {"a": 2.0} if batch else {}, size=6):
            counts[batch] += 1
    expected = (6 + 6 * strata.rho({"a": 2.0})) / 40
    for stratum in range(2):
        rates = counts[strata.labels == stratum] / num
        error = np.sqrt(expected[stratum] / num)
        assert rates.mean() == pytest.approx(expected[stratum], abs=error)
        assert (np.abs(rates - expected[stratum]) < 4 * error).all()


def test_a_kept_sample_that_is_used_up_gives_way_to_another_of_its_stratum():
    """A window takes samples of a from the end; another gives as many to b; then the epoch arrives at its end."""
    strata = Strata({"a": np.arange(60) < 30, "b": np.arange(60) >= 30})
    met = 0
    for seed in range(40):
        deck = Deck(strata, seed, 0, exhausted=Exhausted.repeat)
        dealt = _deal(deck, strata, 12, lambda batch: {"a": 2.0} if batch < 2 else {"b": 2.0} if batch < 4 else {}, 5)
        if deck.repeats.sum() == 0:
            assert sorted(_flat(dealt)) == list(range(60))
            base = _base(60, seed, 0, size=5)
            for new, old in zip(_flat(dealt[4:]), _flat(base[4:]), strict=True):
                assert strata.labels[new] == strata.labels[old]
                met += new != old
    assert met > 10


def test_a_stratum_that_is_used_up_is_refused_by_name():
    strata = Strata({"a": np.arange(100) < 10, "b": np.arange(100) < 50})
    with pytest.raises(InputError, match=r"got 10 samples in 'a' and 'b', all of them used in batch \d+ of epoch 4"):
        _deal(Deck(strata, 0, 4), strata, 12, lambda _: {"a": 9.0}, size=8)


def test_repeats_come_in_whole_permutations_and_are_counted():
    strata = Strata({"a": np.arange(64) < 4})
    deck = Deck(strata, 1, 0, exhausted=Exhausted.repeat)
    seen = _flat(_deal(deck, strata, 6, lambda _: {"a": 1e9}, size=8))
    assert set(seen) == {0, 1, 2, 3}
    rounds = [seen[start : start + 4] for start in range(4, 48, 4)]
    assert all(sorted(turn) == [0, 1, 2, 3] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 3
    assert deck.repeats.tolist() == [0, 44]
    again = Deck(strata, 1, 0, exhausted=Exhausted.repeat)
    assert _flat(_deal(again, strata, 6, lambda _: {"a": 1e9}, size=8)) == seen


def test_skipping_equals_dealing_without_weights():
    strata = _strata()
    dealt, skipped = Deck(strata, 5, 0), Deck(strata, 5, 0)
    _deal(dealt, strata, 20, lambda _: {})
    skipped.skip(20 * SIZE)
    rho = strata.rho({"a": 5.0})
    for batch in range(20, 60):
        assert dealt.deal(batch, SIZE, rho) == skipped.deal(batch, SIZE, rho)


def test_where_a_stratum_is_used_up_others_take_its_place_each_once():
    strata = _strata(320)
    weights = {"a": 50.0}
    batches = 320 // SIZE
    with pytest.raises(InputError, match="all of them used"):
        _deal(Deck(strata, 0, 0), strata, batches, lambda _: weights)
    deck = Deck(strata, 0, 0, exhausted=Exhausted.others)
    repeating = Deck(strata, 0, 0, exhausted=Exhausted.repeat)
    seen = _flat(_deal(deck, strata, batches, lambda _: weights))
    again = _flat(_deal(repeating, strata, batches, lambda _: weights))
    assert sorted(seen) == list(range(320))
    first = next(place for place, pair in enumerate(zip(seen, again, strict=True)) if pair[0] != pair[1])
    inside = strata.members[strata.labels][:, strata.names.index("a")]
    # Until then nothing is different; from then on what is left is drawn.
    assert inside[seen[:first]].mean() > 0.8
    assert deck.replaced.sum() > 0
    assert deck.repeats.sum() == 0
