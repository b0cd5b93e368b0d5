"""Classes as the probe groups of a text data module, from Python and from a configuration."""

import jsonargparse
import pytest
import torch
import yaml

from stagewise.errors import InputError
from stagewise.lm import TextData
from stagewise.lm.classes import BigramTable, ClassSpec, class_groups, read_vocabulary
from stagewise.lm.text import hold_out, token_rows
from stagewise.lm.tokens import induction_targets, text_groups
from tests.lm.classes.strings import chosen

SMALL = {"num_sequences": 64, "num_val": 16, "num_observed": 8, "num_sampling": 16, "batch_size": 8, "vocab_size": 300}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    for index in range(20):
        lines = [f"def name_{index}_{line}(value): return value + {line * index}\n" for line in range(12)]
        (root / f"file_{index:02}.py").write_text("".join(lines))
    return root


@pytest.fixture
def settings(corpus, tmp_path):
    return {"corpus": str(corpus), "cache_dir": str(tmp_path), "held_out_fraction": 0.2, **SMALL}


def test_without_classes_groups_are_what_they_were(settings):
    data = TextData(**settings)
    probe = data.probe_data()
    text = probe.observed["input_ids"][:8]
    before = text_groups(text, data.tokenizer)
    assert list(probe.groups) == [*before, "first_copy"]
    assert all(torch.equal(probe.groups[name][:8], mask) for name, mask in before.items())
    for name in ("delimiter", "rest"):
        assert not probe.groups[name][8:].any()


def test_classes_are_groups_over_text_and_repeated_segments_keep_theirs(settings):
    today = TextData(**settings).probe_data()
    data = TextData(classes={"value": ClassSpec(pattern="val"), "numeric": "numeric"}, **settings)
    probe = data.probe_data()
    for batch in ("observed", "sampling"):
        assert torch.equal(getattr(probe, batch)["input_ids"], getattr(today, batch)["input_ids"])
    assert set(probe.groups) == {"value", "numeric", "induction", "first_copy"}
    text = probe.observed["input_ids"][:8]
    assert not probe.groups["numeric"][8:].any()
    rows = [[data.tokenizer.decode([index]) for index in row] for row in text.tolist()]
    digits = [[(k, s) for k, s in enumerate(row) if k and s.strip(" ").isdigit() and s.count(" ") < 2] for row in rows]
    assert chosen(probe.groups["numeric"][:8], rows) == digits
    assert any(digits)
    for name in ("induction", "first_copy"):
        assert torch.equal(probe.groups[name][8:], today.groups[name][8:])
    ordinary = text[:, 1:] != data.tokenizer.eos_token_id
    assert torch.equal(probe.groups["induction"][:8], induction_targets(text) & ordinary)
    assert not probe.groups["first_copy"][:8].any()


def test_a_listed_induction_class_is_the_same_group(settings):
    unlisted = TextData(classes=["numeric"], **settings).probe_data()
    listed = TextData(classes=["induction", "numeric"], **settings).probe_data()
    assert list(listed.groups) == ["induction", "numeric", "first_copy"]
    assert torch.equal(listed.groups["induction"], unlisted.groups["induction"])


def test_complements_are_over_text_alone(settings):
    data = TextData(classes=["numeric", "induction"], complements=True, **settings)
    probe = data.probe_data()
    assert set(probe.groups) == {"numeric", "not_numeric", "induction", "not_induction", "first_copy"}
    ordinary = probe.observed["input_ids"][:8, 1:] != data.tokenizer.eos_token_id
    for name in ("numeric", "induction"):
        assert torch.equal(probe.groups[name][:8] ^ probe.groups[f"not_{name}"][:8], ordinary)
        assert not probe.groups[f"not_{name}"][8:].any()


def test_in_pure_text_there_are_only_the_classes(settings):
    probe = TextData(classes=["numeric"], induction_fraction=0.0, **settings).probe_data()
    assert set(probe.groups) == {"numeric"}
    assert len(probe.observed["input_ids"]) == 8


def test_bigrams_are_those_of_the_whole_training_text(settings, corpus):
    specs = {
        name: ClassSpec(pattern=r"\w", max_bigram_frequency=limit) for name, limit in (("rare", 2e-4), ("all", 0.99))
    }
    data = TextData(classes=specs, induction_fraction=0.0, **settings)
    probe = data.probe_data()
    train, _ = hold_out([path.read_text() for path in sorted(corpus.iterdir())], 0.2)
    table = BigramTable.count(token_rows(train, data.tokenizer, 32))
    vocabulary = read_vocabulary(data.tokenizer)
    expected = class_groups(probe.observed["input_ids"], vocabulary, specs, bigrams=table)
    assert all(torch.equal(probe.groups[name], expected[name]) for name in specs)
    assert 0 < expected["rare"].sum() < expected["all"].sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["nothing"]}, "got class 'nothing'"),
        ({"classes": []}, "expected a list of default classes"),
        ({"classes": {"first_copy": "numeric"}}, "got class 'first_copy'"),
        ({"classes": {"x": "numeric", "not_x": "spacing"}, "complements": True}, "'not_x', which is also"),
        ({"complements": True}, "complements without classes"),
        ({"classes": {"x": ClassSpec(predicate="no.where")}}, "cannot be imported"),
    ],
)
def test_bad_classes_are_refused_before_any_text_is_read(arguments, message):
    with pytest.raises(InputError, match=message):
        TextData(corpus="/no/such/folder", **arguments)


def test_a_class_without_a_target_is_refused(settings):
    with pytest.raises(InputError, match="'mine', which matches none"):
        TextData(classes={"mine": ClassSpec(pattern="zzzz")}, **settings).probe_data()


def _from_yaml(classes):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TextData, "data")
    return parser.instantiate(parser.parse_string(yaml.safe_dump({"data": {"classes": classes}}))).data


def test_configurations_name_classes_as_nested_settings(settings):
    spec = {"pattern": "^ def", "not_followed_by": "^x", "max_bigram_frequency": 1e-3}
    data = _from_yaml({"mine": spec, "numeric": "numeric"})
    assert data._specs["mine"] == ClassSpec(**spec)
    assert list(data._specs) == ["mine", "numeric"]
    assert list(_from_yaml(["spacing", "numeric"])._specs) == ["spacing", "numeric"]
    assert _from_yaml(None)._specs == {}


def test_typing_errors_in_configurations_are_refused_by_name():
    with pytest.raises(jsonargparse.ArgumentError, match="'patern' is not accepted"):
        _from_yaml({"mine": {"patern": "x"}})
