"""Reading a data set moves nothing in it that training would miss."""

import itertools
import random
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from stagewise.isolation import unmoved


class Jitter:
    def __init__(self, generator):
        self.generator = generator

    def __call__(self, x):
        if isinstance(self.generator, torch.Generator):
            return x + float(torch.rand((), generator=self.generator))
        return x + self.generator.random()


class Compose:
    def __init__(self, *transforms):
        self.transforms = list(transforms)


class Rows(Dataset):
    def __init__(self, transform=None):
        self.x = torch.arange(8.0)
        self.transform = transform
        self.calls = 0
        self.cache = {}

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.calls += 1
        self.cache[index] = self.calls
        x = float(self.x[index]) + self.calls
        for transform in self.transform.transforms if self.transform is not None else []:
            x = transform(x)
        return x


GENERATORS = [
    lambda: torch.Generator().manual_seed(1),
    lambda: random.Random(1),
    lambda: np.random.default_rng(1),
    lambda: np.random.RandomState(1),
]


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(
    "wrap",
    [lambda item: item, lambda item: Subset(item, range(8)), lambda item: ConcatDataset([Subset(item, range(8))])],
)
def test_later_reads_are_as_if_nobody_had_read(generator, wrap):
    def rows():
        return wrap(Rows(Compose(Jitter(generator()))))

    expected = [rows_[index] for rows_ in [rows()] for index in range(8)]
    read = rows()
    with warnings.catch_warnings(), unmoved(read, None):
        warnings.simplefilter("error")
        assert [read[index] for index in range(8)] == expected
        torch.rand(1), random.random(), np.random.rand()
    assert [read[index] for index in range(8)] == expected


def test_global_random_states_are_put_back():
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    with unmoved():
        torch.rand(1), random.random(), np.random.rand()
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))


def test_also_after_an_exception():
    read = Rows()
    with pytest.raises(IndexError), unmoved(read):
        [read[index] for index in range(99)]
    assert read.calls == 0


def test_what_cannot_be_put_back_is_told_with_the_data_set_and_what_to_give():
    class Endless(Rows):
        def __init__(self):
            super().__init__()
            self.numbers = itertools.count()

        def __getitem__(self, index):
            return next(self.numbers)

    read = Endless()
    with (
        pytest.warns(UserWarning, match=r"samples of Endless .* 'numbers', which was advanced .*observed="),
        unmoved(read),
    ):
        read[0]


def test_collate_function_with_a_generator_of_its_own():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    collate = lambda samples: torch.rand(len(samples), generator=generator)  # noqa: E731
    with unmoved(collate):
        collate([1, 2])
    assert torch.equal(generator.get_state(), before)


def test_data_itself_is_not_copied():
    read = Rows()
    read.many = list(range(5000))
    with unmoved(read):
        read.x.add_(1)
        read.many.append(1)
    assert read.x[0] == 1
    assert len(read.many) == 5001
