import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.errors import InputError
from stagewise.lm.classes import BigramTable, class_groups
from stagewise.lm.classes.groups import class_masks
from tests.lm.classes import tokenizers_of_tests as families
from tests.lm.classes.strings import SPECIAL, chosen, tokens

HERE = "tests.lm.classes.user_predicates"
STRINGS = ["a", " a", "b1", "(", "\n", "<end>"]
PATTERNS = ["a", r"^[a-z]", r"^ ", r"\n", "end"]
CONDITIONS = ["pattern", "followed_by", "not_followed_by", "preceded_by", "not_preceded_by"]


def _by_loop(rows, spec):
    def has(pattern, string):
        return string not in SPECIAL and re.search(pattern, string) is not None

    def member(row, at):
        after = row[at + 1] if at + 1 < len(row) else None
        asked = {"pattern": row[at], "followed_by": after, "preceded_by": row[at - 1]}
        asked |= {"not_followed_by": after, "not_preceded_by": row[at - 1]}
        if row[at] in SPECIAL or any(asked[name] is None for name in spec):
            return False
        return all(has(pattern, asked[name]) != name.startswith("not_") for name, pattern in spec.items())

    return [[member(row, at) for at in range(1, len(row))] for row in rows]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(STRINGS), min_size=5, max_size=5), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(CONDITIONS), st.sampled_from(PATTERNS), min_size=1),
)
def test_conditions_equal_their_definition_written_as_a_loop(rows, spec):
    ids, vocabulary = tokens(*rows)
    assert class_masks(ids, vocabulary, {"mine": spec})["mine"].tolist() == _by_loop(rows, spec)


def test_the_shortest_rows_have_nothing_after_them():
    ids, vocabulary = tokens(["a", "b"])
    specs = {"b": {"pattern": "b"}, "part": {"pattern": "b", "followed_by": "b"}, "end": {"not_followed_by": "b"}}
    masks = class_masks(ids, vocabulary, specs)
    assert {name: mask.tolist() for name, mask in masks.items()} == {"b": [[True]], "part": [[False]], "end": [[False]]}


def test_predicates_see_positions_and_strings_and_join_with_patterns():
    rows = [["a", "a", "b", "b", "<end>", "<end>"], ["a", "b", "a", "a", "a", "b"]]
    ids, vocabulary = tokens(*rows)
    same = f"{HERE}.same_string_as_before"
    groups = class_groups(
        ids,
        vocabulary,
        {
            "third": {"predicate": f"{HERE}.third_position"},
            "same": {"predicate": same},
            "same_b": {"predicate": same, "pattern": "b"},
        },
    )
    assert chosen(groups["third"], rows) == [[(2, "b")], [(2, "a")]]
    assert chosen(groups["same"], rows) == [[(1, "a"), (3, "b")], [(3, "a"), (4, "a")]]
    assert chosen(groups["same_b"], rows) == [[(3, "b")], []]


def test_any_class_may_ask_for_rare_bigrams():
    rows = [["a", "b", "a", "c"]]
    ids, vocabulary = tokens(*rows)
    table = BigramTable.count(torch.tensor([[0, 1, 0, 1, 0, 2]]))
    specs = {"rare": {"pattern": "b|c", "max_bigram_frequency": 0.2}, "often": {"max_bigram_frequency": 0.4}}
    groups = class_groups(ids, vocabulary, specs, bigrams=table)
    assert chosen(groups["rare"], rows) == [[(3, "c")]]
    assert chosen(groups["often"], rows) == [[(1, "b"), (2, "a"), (3, "c")]]
    with pytest.raises(InputError, match="'rare' with max_bigram_frequency and no bigrams"):
        class_groups(ids, vocabulary, specs)


def test_complements_are_all_other_targets_that_are_not_special():
    rows = [["a", "b", "<end>", "a", "b", "1"], ["b", "a", "b", "1", "<pad>", "<pad>"]]
    ids, vocabulary = tokens(*rows)
    groups = class_groups(ids, vocabulary, {"b": {"pattern": "b"}, "numeric": "numeric"}, complements=True)
    assert list(groups) == ["b", "numeric", "not_b", "not_numeric"]
    ordinary = torch.tensor([[row[k] not in SPECIAL for k in range(1, 6)] for row in rows])
    for name in ("b", "numeric"):
        assert torch.equal(groups[name] ^ groups[f"not_{name}"], ordinary)
        assert not (groups[name] & groups[f"not_{name}"]).any()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_masks_have_the_shape_of_token_losses_and_the_order_of_the_classes(dtype):
    tokenizer = families.byte_level()
    ids = torch.tensor([tokenizer.encode("foo foo(1"), tokenizer.encode("( foo2(")], dtype=dtype)
    groups = class_groups(ids, tokenizer, ["numeric", "word_start"])
    assert list(groups) == ["numeric", "word_start"]
    assert all(mask.dtype == torch.bool for mask in groups.values())
    assert groups["numeric"].tolist() == [[False, False, True], [False, True, False]]
    assert groups["word_start"].tolist() == [[True, False, False], [True, False, False]]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"mine": {"pattern": "Ġa"}}, r"'mine', which matches none of 4 targets; .*patterns see tokens as they stand"),
        (
            {"mine": {"predicate": f"{HERE}.every_position"}},
            r"got torch.bool \[2, 3\] from the predicate of class 'mine'",
        ),
        ({"mine": {"predicate": f"{HERE}.numbers"}}, r"got torch.int64 \[2, 2\] .* expected a bool tensor \[2, 2\]"),
        ({"mine": {"predicate": f"{HERE}.a_list"}}, "got list from the predicate"),
    ],
)
def test_classes_that_cannot_be_used_are_refused_in_one_line(specs, message):
    ids, vocabulary = tokens(["a", " a", "b"], ["b", "b", "a"])
    with pytest.raises(InputError, match=message) as caught:
        class_groups(ids, vocabulary, specs)
    assert "\n" not in str(caught.value)


def test_a_complement_without_a_target_is_refused():
    ids, vocabulary = tokens(["a", "b", "<end>"])
    with pytest.raises(InputError, match="'not_all', which matches none"):
        class_groups(ids, vocabulary, {"all": {"pattern": "."}}, complements=True)


def test_ids_that_are_not_the_tokenizers_are_refused():
    _, vocabulary = tokens(["a", "b"])
    with pytest.raises(InputError, match="got token ids from 0 to 2; expected 0 to 1"):
        class_groups(torch.tensor([[0, 1, 2]]), vocabulary, ["numeric"])
    with pytest.raises(InputError, match="got token ids from -100 to 1"):
        class_groups(torch.tensor([[0, 1, -100]]), vocabulary, ["numeric"])
    with pytest.raises(InputError, match="expected integers"):
        class_groups(torch.zeros(4, dtype=torch.long), vocabulary, ["numeric"])
    with pytest.raises(InputError, match="no row"):
        class_groups(torch.zeros(0, 4, dtype=torch.long), vocabulary, ["numeric"])
