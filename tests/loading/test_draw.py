"""Which samples a loader draws: by its own sampler, collate function and form of a batch, and nothing is moved."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from stagewise import InputError, ReweightedLoader
from stagewise.loading.draw import draw_batch, draw_indices, has_samples
from stagewise.loading.loader import ResumableLoader

DATA = TensorDataset(torch.arange(300))


class Shuffled(Sampler):
    """A sampler of one's own, with a generator that moves and an epoch."""

    def __init__(self, low, high):
        self.low, self.high = low, high
        self.generator = torch.Generator().manual_seed(5)
        self.rng = np.random.default_rng(5)
        self.epoch = 0
        self.calls = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.calls += 1
        order = torch.randperm(self.high - self.low, generator=self.generator)
        shift = int(self.rng.integers(self.high - self.low)) + self.epoch + random.randrange(5)
        yield from (self.low + (index + shift) % (self.high - self.low) for index in order.tolist())

    def __len__(self):
        return self.high - self.low


class Buckets(Sampler):
    """A batch sampler of one's own: uneven batches."""

    def __iter__(self):
        yield from ([10, 11], [20, 21, 22], [5])

    def __len__(self):
        return 3


def first(loader, limit=64, *, distinct=True):
    return draw_indices(loader, limit, distinct=distinct)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(DATA, 8),
        DataLoader(DATA, 8, shuffle=True),
        DataLoader(DATA, 8, shuffle=True, drop_last=True),
        DataLoader(DATA, 8, sampler=RandomSampler(DATA, replacement=True, num_samples=20)),
        DataLoader(DATA, 8, sampler=DistributedSampler(DATA, num_replicas=2, rank=1)),
        DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 8, drop_last=False)),
        ResumableLoader(DATA, 8),
        ReweightedLoader(DATA, {"even": torch.arange(300) % 2 == 0}, 8),
    ],
)
def test_loaders_of_a_whole_set_give_its_first_samples(loader):
    assert first(loader) == list(range(64))
    assert draw_batch(loader, 64, distinct=True)[0].tolist() == list(range(64))


def test_subset_sampler_gives_its_own_indices_and_no_others():
    loader = DataLoader(DATA, 8, sampler=SubsetRandomSampler(range(100, 200)))
    assert first(loader) == list(range(100, 164))
    assert first(loader, 1024, distinct=False) == list(range(100, 200))
    assert first(DataLoader(DATA, 8, sampler=SubsetRandomSampler(torch.tensor([7, 3, 9])))) == [7, 3, 9]


def test_list_as_a_sampler():
    loader = DataLoader(DATA, 8, sampler=[9, 9, 4])
    assert first(loader) == [9, 4]
    assert first(loader, distinct=False) == [9, 9, 4]


def test_weighted_sampler_draws_by_its_weights():
    weights = torch.zeros(300)
    weights[:200], weights[200:] = 1.0, 6.0
    weights[250:] = 0.0
    loader = DataLoader(DATA, 8, sampler=WeightedRandomSampler(weights, 3000))
    drawn = first(loader, 2000, distinct=False)
    assert len(drawn) == 2000
    assert max(drawn) < 250
    # 300 of 500 parts: three standard errors.
    share = np.mean([index >= 200 for index in drawn])
    assert abs(share - 0.6) < 3 * (0.6 * 0.4 / 2000) ** 0.5
    observed = first(loader)
    assert len(set(observed)) == 64


def test_weighted_sampler_of_a_short_epoch_is_asked_for_more_of_them():
    loader = DataLoader(DATA, 8, sampler=WeightedRandomSampler(torch.ones(300), 20))
    assert len(first(loader, 150, distinct=False)) == 150
    assert len(set(first(loader))) == 64


def test_own_sampler_is_read_from_a_copy_whose_random_states_are_seeded():
    sampler = Shuffled(40, 90)
    loader = DataLoader(DATA, 8, sampler=sampler)
    state = sampler.generator.get_state(), torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    drawn = first(loader)
    assert sorted(drawn) == list(range(40, 90))
    assert first(loader, 1024, distinct=False) == drawn
    assert torch.equal(sampler.generator.get_state(), state[0])
    assert torch.equal(torch.get_rng_state(), state[1])
    assert random.getstate() == state[2]
    assert (np.random.get_state()[1] == state[3]).all()
    assert (sampler.epoch, sampler.calls) == (0, 0)
    # Later in a run, in another process: the same.
    list(sampler)
    sampler.set_epoch(7)
    torch.manual_seed(123)
    assert first(loader) == drawn


def test_own_batch_sampler_is_flattened():
    assert first(DataLoader(DATA, batch_sampler=Buckets())) == [10, 11, 20, 21, 22, 5]
    assert first(DataLoader(DATA, batch_sampler=Buckets()), 3) == [10, 11, 20]


def test_wrapper_of_lightning_under_ddp_is_seen_through():
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

    sampler = DistributedSamplerWrapper(SubsetRandomSampler(range(100, 200)), num_replicas=2, rank=1)
    assert first(DataLoader(DATA, 8, sampler=sampler)) == list(range(100, 164))


class Batches(Dataset):
    """Each item is a batch, of five samples."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return {"x": torch.arange(5) + 5 * index}


def test_items_that_are_batches_are_put_together():
    loader = DataLoader(Batches(), batch_size=None)
    assert draw_batch(loader, 64, distinct=True)["x"].tolist() == list(range(64))
    loader = DataLoader(Batches(), batch_size=None, sampler=SubsetRandomSampler([3, 1]))
    assert draw_batch(loader, 64, distinct=True)["x"].tolist() == [*range(15, 20), *range(5, 10)]


class Rows(Dataset):
    """Takes a list of indices for a batch, as Hugging Face data sets do."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return {"x": torch.tensor(index) * 10}


def test_batches_of_indices_as_a_sampler():
    loader = DataLoader(Rows(), batch_size=None, sampler=BatchSampler(SequentialSampler(range(40)), 4, drop_last=False))
    assert draw_batch(loader, 10, distinct=True)["x"].tolist() == list(range(0, 100, 10))
    loader = DataLoader(Rows(), batch_size=None, sampler=Buckets())
    assert draw_batch(loader, 64, distinct=True)["x"].tolist() == [100, 110, 200, 210, 220, 50]


def test_collate_function_and_many_at_once_are_used():
    class Many(TensorDataset):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

    loader = DataLoader(Many(torch.arange(30)), 8, collate_fn=lambda rows: torch.stack([row[0] for row in rows]) * 2)
    assert draw_batch(loader, 5, distinct=True).tolist() == [0, 2, 4, 6, 8]


def test_persistent_workers_are_left_where_they_are():
    loader = DataLoader(DATA, 8, num_workers=1, persistent_workers=True)
    iterator = iter(loader)
    assert next(iterator)[0].tolist() == list(range(8))
    draw_batch(loader, 64, distinct=True)
    assert next(iterator)[0].tolist() == list(range(8, 16))


def test_generator_of_the_data_set_is_put_back():
    class Noisy(Dataset):
        def __init__(self):
            self.rng = np.random.default_rng(0)

        def __len__(self):
            return 10

        def __getitem__(self, index):
            return self.rng.random()

    expected = Noisy()[0]
    dataset = Noisy()
    draw_batch(DataLoader(dataset, 2), 5, distinct=True)
    assert dataset[0] == expected


class Closed(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        raise OSError("opened by workers only")


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (DataLoader(DATA, 8, sampler=(index for index in range(10))), "cannot be read without advancing it"),
        (DataLoader(DATA, 8, sampler=SubsetRandomSampler([])), "empty data set"),
        (DataLoader(Closed(), 8), "samples cannot be fetched in this process .OSError: opened by workers"),
        (DataLoader([torch.zeros(2, 3), torch.zeros(2, 4)], batch_size=None), "cannot be concatenated"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_round(loader, words):
    with pytest.raises(InputError, match=words) as caught:
        draw_batch(loader, 64, distinct=True)
    assert "empty" in words or ("observed=" in str(caught.value) and "sampling=" in str(caught.value))


def test_iterator_is_not_used_up_by_the_refusal():
    indices = iter(range(10))
    with pytest.raises(InputError):
        first(DataLoader(DATA, 8, sampler=indices))
    assert next(indices) == 0


def test_streams_have_no_samples_to_draw():
    class Stream(IterableDataset):
        def __iter__(self):
            yield 0

        def __len__(self):
            return 10

    assert not has_samples(DataLoader(Stream()))
    assert not has_samples({"a": DataLoader(DATA)})
    assert has_samples(DataLoader([1, 2]))
