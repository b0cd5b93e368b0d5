"""Generators of objects and global states are found, put back, and seeded."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.isolation import unmoved
from stagewise.isolation.seeding import find_generators, global_seed, seed_generators


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.ModuleDict({"inner": nn.Linear(1, 1)})
        self.part["inner"].generator = torch.Generator().manual_seed(1)
        self.many = {"numpy": np.random.default_rng(1), "old": [np.random.RandomState(1)]}
        self.python = random.Random(1)
        self.own = self


def draws(holder):
    return [
        torch.rand((), generator=holder.part["inner"].generator).item(),
        holder.many["numpy"].random(),
        holder.many["old"][0].rand(),
        holder.python.random(),
    ]


def test_generators_are_put_back_also_after_an_error():
    expected = draws(Holder())
    holder = Holder()
    assert len(find_generators(holder)) == 4

    def fail():
        draws(holder)
        raise KeyError

    with pytest.raises(KeyError), unmoved(holder):
        fail()
    assert draws(holder) == expected


def test_seeded_generators_forget_where_they_were():
    first, second = Holder(), Holder()
    draws(second)
    for holder in (first, second):
        seed_generators(holder, 5)
    assert draws(first) == draws(second)
    assert draws(first) != draws(Holder())


def test_global_states_are_seeded_inside_and_put_back():
    def three():
        return torch.rand(()).item(), np.random.rand(), random.random()

    with global_seed(3):
        inside = three()
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    expected = three()
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    with global_seed(3):
        assert three() == inside
    assert three() == expected
