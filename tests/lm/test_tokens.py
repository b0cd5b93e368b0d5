import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.errors import InputError
from stagewise.lm.tokens import broken_repeats, induction_targets, text_groups, vocabulary_mask


def _by_loop(row):
    found, broken = [], []
    for k in range(len(row) - 1):
        earlier = [j for j in range(k) if row[j] == row[k]]
        found.append(any(row[j + 1] == row[k + 1] for j in earlier))
        broken.append(bool(earlier) and not found[-1])
    return found, broken


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=9, max_size=9), min_size=1, max_size=4))
def test_masks_equal_the_definition_written_as_a_loop(rows):
    ids = torch.tensor(rows)
    expected = [_by_loop(row) for row in rows]
    assert induction_targets(ids).tolist() == [found for found, _ in expected]
    assert broken_repeats(ids).tolist() == [broken for _, broken in expected]


def test_a_known_sequence():
    #                    a  b  c  a  b  a  c
    ids = torch.tensor([[0, 1, 2, 0, 1, 0, 2]])
    assert induction_targets(ids).tolist() == [[False, False, False, True, False, False]]
    assert broken_repeats(ids).tolist() == [[False, False, False, False, True, True]]


class _Letters:
    words = ("(", "a", " )", "  ", "b,", "::")

    def __len__(self):
        return len(self.words)

    def get_vocab(self):
        return {word: index for index, word in enumerate(self.words)}

    def decode(self, ids, **_):
        return "".join(self.words[i] for i in ids)


def test_delimiters_are_judged_by_their_strings():
    assert vocabulary_mask(list(_Letters.words)).tolist() == [True, False, True, False, False, True]


def test_text_groups_cover_every_target_and_rest_is_the_complement():
    ids = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 5], [4, 4, 4, 4, 3, 3, 3, 1]])
    groups = text_groups(ids, _Letters())
    assert groups["delimiter"].tolist()[0] == [False, True, False, True, False, True, True]
    assert torch.equal(groups["rest"], ~(groups["induction"] | groups["delimiter"]))
    assert (groups["induction"] & groups["delimiter"]).any(), "classes may overlap"


@pytest.mark.parametrize(
    "ids", [torch.zeros(3, dtype=torch.long), torch.zeros(3, 1, dtype=torch.long), torch.zeros(2, 4)]
)
def test_what_is_not_a_batch_of_token_ids_is_refused(ids):
    with pytest.raises(InputError, match="expected integers"):
        induction_targets(ids)
