"""Predicates as a user would write them, found by their dotted paths."""

from itertools import pairwise

import torch


def third_position(text):
    return text.positions == 2


def same_string_as_before(text):
    found = [[a == b for a, b in pairwise(row)] for row in text.strings]
    return torch.tensor(found)


def every_position(text):
    return torch.ones(text.ids.shape, dtype=torch.bool)


def numbers(text):
    return text.positions


def a_list(text):
    return text.positions.eq(1).tolist()


not_a_predicate = 3
