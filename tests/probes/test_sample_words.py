"""Samples are named by text, label, index or number, in one short printable line."""

import numpy as np
import pytest
import torch

from stagewise.probes.sample_words import LONGEST, Kind, shortened, words_of
from tests.callbacks.test_default_groups import small_tokenizer

IDS = torch.tensor([[0, 1, 5, 2], [4, 5, 7, 6]])


class Letters:
    """A tokenizer of another kind: decode takes ids alone."""

    def decode(self, ids):
        return "".join(chr(index) for index in ids)


class Failing:
    def decode(self, ids, **settings):
        raise KeyError(ids)


def test_tokens_are_decoded_and_padding_is_not():
    tokenizer = small_tokenizer()
    batch = {"input_ids": IDS, "attention_mask": torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])}
    told = words_of(batch, IDS, tokenizer)
    assert told.kind is Kind.text
    assert told.words == (tokenizer.decode([1, 5, 2]), tokenizer.decode([4, 5, 7, 6]))
    assert told.words[1].split() == ["return", "x", "+", "y"]


def test_a_tokenizer_of_another_kind_decodes_and_one_that_fails_costs_the_text_alone():
    ids = torch.tensor([[104, 10, 105], [32, 32, 32]])
    told = words_of((ids, torch.tensor([3, 4])), ids, Letters())
    assert (told.words, told.kind) == (("h\\ni", "sample 1"), Kind.text)
    told = words_of((ids, torch.tensor([3, 4])), ids, Failing())
    assert (told.words, told.kind) == (("label 3", "label 4"), Kind.label)


@pytest.mark.parametrize(
    ("batch", "words", "kind"),
    [
        ((torch.zeros(2, 3), torch.tensor([7, -1])), ("label 7", "label -1"), Kind.label),
        ({"x": torch.zeros(2, 3), "text": ["a\tb", "c"]}, ("a\\tb", "c"), Kind.text),
        ({"one": ["a", "b"], "two": ["c", "d"]}, ("sample 0", "sample 1"), Kind.number),
        (torch.tensor([70, 3]), ("index 70", "index 3"), Kind.place),
        ((torch.zeros(2, 3), torch.zeros(2)), ("sample 0", "sample 1"), Kind.number),
        (np.zeros((2, 3)), ("sample 0", "sample 1"), Kind.number),
        (IDS, ("sample 0", "sample 1"), Kind.number),
    ],
)
def test_without_a_tokenizer_words_are_what_the_batch_has(batch, words, kind):
    told = words_of(batch)
    assert (told.words, told.kind) == (words, kind)


def test_texts_are_cut_and_hold_nothing_that_is_not_printable():
    assert shortened("x" * LONGEST) == "x" * LONGEST
    cut = shortened("x" * 5000)
    assert len(cut) == LONGEST
    assert cut == "x" * (LONGEST - 1) + "…"
    hostile = "a\x00b\x1b[31m\u202e\u2028\ud800 é“<b>\n"
    told = shortened(hostile)
    assert told.isprintable()
    assert told == "a\\x00b\\x1b[31m\\u202e\\u2028\\ud800 é“<b>\\n"
    assert told.encode("utf-8").decode("utf-8") == told
    assert len(shortened("\n" * 500)) == LONGEST
