"""The default classes against targets listed by hand."""

import pytest
import torch

from stagewise.lm.classes import DEFAULT_CLASSES, BigramTable
from stagewise.lm.classes.groups import class_masks
from stagewise.lm.tokens import broken_repeats, induction_targets
from tests.lm.classes import tokenizers_of_tests as families
from tests.lm.classes.strings import chosen, tokens

CODE = ["def", " fi", "rst", "Name", "(", "x", ")", ":", "\n    ", "return", " x", "1", "<end>"]
PROSE = ["<end>", " The", " un", "seen", ",", " 42", "   ", "foo", "_", "bar", " (", "it", "<end>"]


def found(name, *rows):
    ids, vocabulary = tokens(*rows)
    return chosen(class_masks(ids, vocabulary, [name])[name], rows)


def test_words():
    assert found("word_start", CODE, PROSE) == [[(1, " fi"), (10, " x")], [(1, " The"), (2, " un")]]
    assert found("word_part", CODE, PROSE) == [[(2, "rst")], []]
    ends = [[(3, "Name"), (5, "x"), (9, "return")], [(3, "seen"), (7, "foo"), (9, "bar"), (11, "it")]]
    assert found("word_end", CODE, PROSE) == ends


def test_a_token_whose_follower_is_a_letter_and_more_is_neither_part_nor_end():
    row = [" a", "b", "c1", "d", " e"]
    assert found("word_part", row) == [[]]
    assert found("word_end", row) == [[(3, "d")]]


def test_what_follows_the_last_token_is_not_known():
    for name in ("word_part", "word_end"):
        assert found(name, [" a", "b", "c"]) == [[(1, "b")] if name == "word_part" else []]


def matched(name, strings):
    return [string for _, string in found(name, ["start", *strings, "<end>"])[0]]


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("left_delimiter", ["(", " (", "[[", "('", ' ["', "<", "“", " {"], [")", "()", "x(", "  (", "'", "\n("]),
        ("right_delimiter", [")", " )", "]]", "')", '"]', "),", "):", ");\n", ">", "”"], ["(", "()", ".", "'", "->"]),
        ("spacing", ["  ", "       "], [" ", "  \n", "\t\t", "  x"]),
        ("numeric", ["7", " 42", "007"], ["4.2", "x1", " ", "  7", "٣", "7\n"]),
        (
            "formatting",
            [
                "\n",
                "\n\n    ",
                "\t",
                "  \r\n",
                "#",
                " ##",
                "**",
                "```",
                "---",
                "===",
                "</",
                "/>",
                "<br>",
                "</p>",
                "<div",
            ],
            ["  ", "*", "-", "--", "<", ">", "# x", "=", "x\n", "__", "<1>"],
        ),
        ("word_start", [" a", " Then"], ["a", " a1", "  a", " a\n", " é"]),
    ],
)
def test_patterns_tell_tokens_apart(name, inside, outside):
    assert matched(name, [*inside, *outside]) == inside


def test_induction_and_its_control_are_those_of_all_token_data_but_special_targets():
    ids = torch.randint(0, 5, (40, 12))
    _, vocabulary = tokens(["a", "b", "<end>", "c", "d"])
    masks = class_masks(ids, vocabulary, ["induction", "repeated_other_follower"])
    ordinary = ids[:, 1:] != 2
    assert torch.equal(masks["induction"], induction_targets(ids) & ordinary)
    assert torch.equal(masks["repeated_other_follower"], broken_repeats(ids) & ordinary)
    assert (induction_targets(ids) & ~ordinary).any()


def test_long_rows_are_looked_at_a_few_at_a_time(monkeypatch):
    ids = torch.randint(0, 9, (7, 10))
    _, vocabulary = tokens(list("abcdefghi"))
    whole = class_masks(ids, vocabulary, ["induction"])["induction"]
    for most in (1, 250):
        monkeypatch.setattr("stagewise.lm.classes.predicates._MAX_PAIRS", most)
        assert torch.equal(class_masks(ids, vocabulary, ["induction"])["induction"], whole)


def test_strict_induction_leaves_out_bigrams_that_are_common_in_the_corpus():
    rows = [["a", "b", "c", "d", "a", "b", "c", "d"]]
    ids, vocabulary = tokens(*rows)
    # Of 20,000 bigrams (a, b) is 3, (b, c) is 2, (c, d) none: the limit is 1e-4, two of them.
    pairs = torch.tensor([[0, 1]] * 3 + [[1, 2]] * 2 + [[3, 3]] * 19_995)
    masks = class_masks(ids, vocabulary, ["induction", "induction_strict"], bigrams=BigramTable.count(pairs))
    assert chosen(masks["induction"], rows) == [[(5, "b"), (6, "c"), (7, "d")]]
    assert chosen(masks["induction_strict"], rows) == [[(6, "c"), (7, "d")]]
    assert DEFAULT_CLASSES["induction_strict"].max_bigram_frequency == 1e-4


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback", "unigram"])
def test_classes_mean_the_same_with_every_family_of_tokenizers(family):
    tokenizer = getattr(families, family)()
    rows = [["(", " foo", "foo", "(", "\n", " foo", "(", "\n"]]
    ids = torch.tensor([tokenizer.encode("( foofoo(\n foo(\n", add_special_tokens=False)])
    # The two that put a space first have one token more, or another first token: targets count from the end.
    masks = class_masks(ids, tokenizer, ["word_start", "word_end", "left_delimiter", "formatting", "induction"])
    listed = {
        "word_start": [(1, " foo"), (5, " foo")],
        "word_end": [(2, "foo")],
        "left_delimiter": [(3, "("), (6, "(")],
        "formatting": [(4, "\n"), (7, "\n")],
        "induction": [(7, "\n")],
    }
    assert {name: chosen(mask[:, -7:], rows)[0] for name, mask in masks.items()} == listed


def test_classes_of_word_pieces():
    tokenizer = families.word_piece()
    ids = torch.tensor([[*tokenizer.encode("foo foofoos foo (12.", add_special_tokens=False), 2]])
    rows = [tokenizer.convert_ids_to_tokens(ids[0].tolist())]
    masks = class_masks(ids, tokenizer, ["word_start", "word_part", "word_end", "left_delimiter", "numeric"])
    assert {name: chosen(mask, rows)[0] for name, mask in masks.items()} == {
        "word_start": [(1, "foo"), (4, "foo")],
        "word_part": [(2, "##foo")],
        "word_end": [(3, "##s")],
        "left_delimiter": [(5, "(")],
        "numeric": [(6, "12")],
    }
