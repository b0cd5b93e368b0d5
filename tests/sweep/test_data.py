from dataclasses import replace

import pytest
import torch

from stagewise.errors import InputError
from stagewise.lm.classes.spec import ClassSpec
from stagewise.lm.text import hold_out
from stagewise.sweep.config import TextSettings
from stagewise.sweep.data import data_hash, first_token, groups_of, sweep_data, token_rows
from tests.sweep.tiny import text, tiny_config, tokenizer


def test_rows_are_the_documents_one_after_the_other_each_ended():
    it = tokenizer()
    documents = ["alpha (beta)", "gamma gamma", "delta"]
    flat = [token for text in documents for token in [*it(text)["input_ids"], it.eos_token_id]]
    rows = token_rows(documents, it, 4)
    assert rows.flatten().tolist() == flat[: len(flat) // 4 * 4]


def test_a_tokenizer_that_begins_texts_begins_every_sequence():
    plain, begins = tokenizer(), tokenizer(begins=True)
    assert (first_token(plain), first_token(begins)) == (None, begins.bos_token_id)
    rows = token_rows([text()], begins, 8)
    assert (rows[:, 0] == begins.bos_token_id).all()
    assert torch.equal(rows[:, 1:], token_rows([text()], plain, 7))


@pytest.mark.parametrize("begins", [False, True])
def test_observed_and_sampling_sequences_come_from_different_documents(tmp_path, begins):
    config, it = tiny_config(tmp_path, "any"), tokenizer(begins)
    driving, held = hold_out([text()], config.data.held_out_fraction)
    data = sweep_data(config, it)
    for ids, documents, num in ((data.observed, held, 4), (data.sampling, driving, 8)):
        found = {tuple(row) for row in ids["input_ids"].tolist()}
        assert len(ids["input_ids"]) == num
        assert found <= {tuple(row) for row in token_rows(documents, it, 16).tolist()}


def test_each_seed_draws_sequences_of_its_own_and_the_same_again(tmp_path):
    config = tiny_config(tmp_path, "any")
    seeds = [replace(config, data=replace(config.data, seed=seed)) for seed in (0, 0, 1)]
    hashes = [data_hash(sweep_data(item, tokenizer())) for item in seeds]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_hash_sees_groups(tmp_path):
    data = sweep_data(tiny_config(tmp_path, "any"), tokenizer())
    fewer = replace(data, groups={name: mask for name, mask in data.groups.items() if name != "rest"})
    other = replace(data, groups={**data.groups, "rest": ~data.groups["rest"]})
    assert len({data_hash(data), data_hash(fewer), data_hash(other)}) == 3


def test_groups_without_a_token_are_left_out():
    it = tokenizer()
    ids = torch.tensor([it("alpha beta gamma delta")["input_ids"][:3]])
    found = groups_of(ids, it, TextSettings(), ids)
    assert "delimiter" not in found
    assert all(mask.any() for mask in found.values())


def test_classes_are_the_groups_where_they_are_named_with_complements(tmp_path):
    rare = ClassSpec(predicate="stagewise.lm.classes.predicates.induction", max_bigram_frequency=1e-9)
    settings = {"context": 16, "num_observed": 4, "num_sampling": 8}
    given = TextSettings(
        **settings, classes={"numeric": "numeric", "word": ClassSpec(pattern="[a-z]")}, complements=True
    )
    data = sweep_data(tiny_config(tmp_path, "any", data=given), tokenizer())
    assert list(data.groups) == ["numeric", "word", "not_numeric", "not_word"]
    assert torch.equal(data.groups["numeric"], ~data.groups["not_numeric"])
    # Bigrams are counted in the text that drives the chains: none is as rare as that.
    with pytest.raises(InputError, match="'rare', which matches none"):
        sweep_data(tiny_config(tmp_path, "any", data=TextSettings(**settings, classes={"rare": rare})), tokenizer())


@pytest.mark.parametrize(
    ("changed", "words"), [({"classes": ["verbs"]}, "class 'verbs'"), ({"complements": True}, "classes to complement")]
)
def test_unknown_classes_are_refused_at_once(changed, words):
    with pytest.raises(InputError, match=words):
        TextSettings(**changed)


def test_too_little_text_is_refused_with_the_figures(tmp_path):
    config = tiny_config(tmp_path, "any", data=TextSettings(context=16, num_observed=500, num_sampling=8))
    with pytest.raises(InputError, match=r"sequences of 16 tokens for data.num_observed=500"):
        sweep_data(config, tokenizer())


@pytest.mark.parametrize(
    "changed",
    [{"context": 1}, {"num_observed": 1}, {"num_sampling": 0}, {"held_out_fraction": 1.0}, {"max_documents": 0}],
)
def test_settings_out_of_range_are_refused(changed):
    with pytest.raises(InputError, match=r"got .*; expected "):
        TextSettings(**changed)
