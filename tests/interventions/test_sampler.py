import json
from itertools import islice

import numpy as np
import pytest
import torch

from stagewise.errors import InputError
from stagewise.interventions.sampler import ReweightedBatches
from stagewise.interventions.strata import Strata
from stagewise.loading.order import SeededBatches

NUM = 960


def _strata(share=0.3):
    rng = np.random.default_rng(0)
    return Strata({"a": rng.random(NUM) < share, "b": rng.random(NUM) < 0.5})


def window(number):
    return {"a": 4.0} if 5 <= number < 12 else {}


def _batches(**settings):
    return ReweightedBatches(_strata(), 8, 3, **{"weights_for": window, "when_exhausted": "repeat", **settings})


@pytest.mark.parametrize("weights_for", [None, lambda number: {"a": 1.0}])
def test_without_weights_the_order_is_that_of_an_ordinary_epoch(weights_for):
    batches, plain = _batches(weights_for=weights_for, when_exhausted="refuse"), SeededBatches(NUM, 8, 3)
    for epoch in (0, 1):
        batches.epoch = plain.epoch = epoch
        assert list(batches) == list(plain)
        batches.begin_epoch(len(batches))
    assert batches.history == []


def test_epochs_and_seeds_differ_and_repeat():
    def draw(seed, epoch):
        batches = ReweightedBatches(_strata(), 8, seed, weights_for=window, when_exhausted="repeat")
        batches.epoch = epoch
        torch.rand(3)
        return list(islice(batches, 12))

    assert draw(1, 0) == draw(1, 0)
    assert draw(1, 0) != draw(1, 1)
    assert draw(1, 0) != draw(2, 0)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_take_disjoint_parts_of_one_global_order(world_size):
    whole = list(ReweightedBatches(_strata(), 8 * world_size, 3, weights_for=window, when_exhausted="repeat"))
    parts = [list(_batches(rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(part) for part in parts} == {len(whole)} == {NUM // (8 * world_size)}
    differs = False
    plain = list(SeededBatches(NUM, 8 * world_size, 3))
    for batch, samples in enumerate(whole):
        shards = [part[batch] for part in parts]
        assert all(len(shard) == 8 for shard in shards)
        assert [samples[place] for place in range(len(samples))] == [
            shards[place % world_size][place // world_size] for place in range(len(samples))
        ]
        if batch < 20:  # before repeats set in
            assert len({sample for shard in shards for sample in shard}) == 8 * world_size
        differs |= samples != plain[batch]
    assert differs


def test_the_shard_is_that_of_torch_distributed(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    found = _batches()
    assert found.shard == (1, 2)
    expected = _batches(rank=1, world_size=2)
    assert len(found) == len(expected) == NUM // 16
    assert list(found) == list(expected)
    assert _batches(rank=0, world_size=1).shard == (0, 1)


def test_weights_are_asked_for_once_a_batch_and_changes_recorded():
    asked = []

    def weights_for(number):
        asked.append(number)
        return window(number)

    batches = _batches(weights_for=weights_for)
    stream = iter(batches)
    next(stream)
    assert asked == [0]
    list(islice(stream, 19))
    assert asked == list(range(20))
    assert batches.history == [(5, {"a": 4.0, "b": 1.0}), (12, {"a": 1.0, "b": 1.0})]
    for number in range(20):
        assert batches.weights_of(number)["a"] == window(number).get("a", 1.0)


@pytest.mark.parametrize("used", [1, 4, 7, 11, 15])
@pytest.mark.parametrize("ahead", [0, 4])
def test_a_resumed_order_equals_the_uninterrupted_one(used, ahead):
    """Weights change live; batches drawn ahead keep the weights that they were drawn with."""
    now = {"weights": {}}
    whole = _batches(weights_for=lambda _: now["weights"])
    order, states = [], {}
    stream = iter(whole)
    for drawn in range(30):
        if drawn - ahead == 3:
            now["weights"] = {"a": 4.0}
        if drawn - ahead == 9:
            now["weights"] = {"b": 0.5}
        states[drawn] = json.loads(json.dumps(whole.state_dict()))
        order.append(next(stream))

    resumed = _batches(weights_for=lambda _: now["weights"])
    resumed.load_state_dict(states[used + ahead])
    resumed.skip = used
    now["weights"] = {"a": 4.0} if 3 <= used < 9 else {"b": 0.5} if used >= 9 else {}
    found = []
    for drawn, samples in zip(range(used, 30), resumed, strict=False):
        found.append(samples)
        if drawn + 1 - ahead == 3:
            now["weights"] = {"a": 4.0}
        if drawn + 1 - ahead == 9:
            now["weights"] = {"b": 0.5}
    assert found == order[used:]
    assert resumed.history == whole.history != []


def test_a_new_epoch_forgets_what_was_drawn_and_not_used():
    batches = _batches()
    list(islice(batches, 10))
    assert batches.history == [(5, {"a": 4.0, "b": 1.0})]
    batches.begin_epoch(4)
    assert batches.history == []
    batches.epoch = 1
    list(islice(batches, 3))
    assert batches.history == [(5, {"a": 4.0, "b": 1.0})]
    assert batches.drawn == 7


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: ReweightedBatches(_strata(), 8, 4), "has seed 3, and a loader with 4"),
        (lambda: ReweightedBatches(_strata(), 16, 3), "has batch_size 8, and a loader with 16"),
        (lambda: ReweightedBatches(_strata(), 8, 3, rank=0, world_size=2), "has world_size 1, and a loader with 2"),
        (lambda: ReweightedBatches(_strata(), 8, 3), "has when_exhausted repeat"),
        (lambda: ReweightedBatches(_strata(0.2), 8, 3, when_exhausted="repeat"), "has counts"),
        (
            lambda: ReweightedBatches(Strata({"c": np.arange(NUM) < 9}), 8, 3, when_exhausted="repeat"),
            r"has groups \['a', 'b'\], and a loader with \['c'\]",
        ),
    ],
)
def test_a_state_of_another_order_is_refused(other, words):
    with pytest.raises(InputError, match=words):
        other().load_state_dict(_batches().state_dict())


def test_the_state_is_the_same_on_all_ranks():
    states = []
    for rank in range(2):
        batches = _batches(rank=rank, world_size=2)
        list(islice(batches, 8))
        states.append(batches.state_dict())
    assert states[0] == states[1]


def test_with_others_no_sample_comes_twice_as_in_a_live_window_that_refuses():
    def batches(when_exhausted):
        return _batches(weights_for=lambda _: {"a": 8.0}, when_exhausted=when_exhausted)

    with pytest.raises(InputError, match="all of them used"):
        list(batches("refuse"))
    chosen, live = batches("others"), batches("refuse")
    live.live = True
    drawn = list(chosen)
    assert sorted(np.concatenate(drawn)) == list(range(NUM))
    assert drawn == list(live)
    assert chosen.replaced == live.replaced > 0
    assert chosen.state_dict()["order"]["when_exhausted"] == "others"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"batch_size": 0}, "batches of 0"),
        ({"batch_size": NUM + 1}, "at least one full batch"),
        ({"batch_size": NUM, "rank": 0, "world_size": 2}, f"batches of {2 * NUM}"),
        ({"rank": 2, "world_size": 2}, "0 <= rank < world_size"),
        ({"rank": 0}, "0 <= rank < world_size"),
        ({"when_exhausted": "stop"}, "expected one of refuse, repeat, others"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        ReweightedBatches(_strata(), **{"batch_size": 8, **settings})


@pytest.mark.parametrize(("weights", "words"), [({"c": 2.0}, "got group 'c'"), ({"a": -1.0}, "weight -1.0")])
def test_weights_that_cannot_be_followed_are_refused_when_drawn(weights, words):
    with pytest.raises(InputError, match=words):
        next(iter(_batches(weights_for=lambda _: weights)))
