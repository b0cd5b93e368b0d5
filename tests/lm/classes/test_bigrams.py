from collections import Counter
from itertools import pairwise

import pytest
import torch

from stagewise.errors import InputError
from stagewise.lm.classes import BigramTable


def test_frequencies_are_those_of_a_plain_count():
    corpus = torch.randint(0, 5, (20, 9))
    counted = Counter((a, b) for row in corpus.tolist() for a, b in pairwise(row))
    other = torch.randint(0, 7, (6, 8))
    expected = [[counted[a, b] / 160 for a, b in pairwise(row)] for row in other.tolist()]
    assert BigramTable.count(corpus).frequency(other).tolist() == expected
    assert any(0.0 in row for row in expected)


def test_large_ids_do_not_collide():
    high = 2**31 - 1
    table = BigramTable.count(torch.tensor([[0, high, 1, 0, high]]))
    assert table.frequency(torch.tensor([[high, 0, high, 1, 1]])).tolist() == [[0.0, 0.5, 0.25, 0.0]]


def test_a_corpus_without_bigrams_is_refused():
    with pytest.raises(InputError, match="without bigrams"):
        BigramTable.count(torch.zeros(0, 4, dtype=torch.int64))
    with pytest.raises(InputError, match="expected integers"):
        BigramTable.count(torch.zeros(3, 1, dtype=torch.int64))
