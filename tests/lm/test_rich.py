"""Rich sequences against a plain loop over tokens."""

import pytest
import torch

from stagewise.errors import InputError
from stagewise.interventions.loader import ReweightedLoader
from stagewise.lm import TextData
from stagewise.lm.classes import BigramTable, ClassSpec
from stagewise.lm.data import SequenceData
from stagewise.lm.rich import richest, share_of_targets
from stagewise.lm.tokens import induction_targets
from stagewise.loading.loader import ResumableLoader

SMALL = {"num_val": 16, "num_observed": 8, "num_sampling": 16, "batch_size": 8, "vocab_size": 300}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Files that repeat themselves more and less."""
    root = tmp_path_factory.mktemp("corpus")
    for index in range(20):
        lines = [f"def name_{index}_{line % (index + 1)}(value): return {line * index}\n" for line in range(24)]
        (root / f"file_{index:02}.py").write_text("".join(lines))
    return root


@pytest.fixture
def text(corpus, tmp_path):
    def make(**changed):
        settings = {"corpus": str(corpus), "cache_dir": str(tmp_path), "held_out_fraction": 0.2, **SMALL}
        return TextData(**{**settings, "induction_fraction": 0.0, **changed})

    return make


def told_by_a_copy(row):
    """Places of targets that follow an earlier copy of their last token, as a plain loop finds them."""
    return [
        place
        for place in range(1, len(row))
        if any(row[j] == row[place - 1] and row[j + 1] == row[place] for j in range(place - 1))
    ]


def test_the_rich_quarter_is_that_of_a_plain_count(text):
    data = text(rich_class="induction")
    group = data.training_groups()["rich_in_induction"]
    rows = data.train_rows.table[:]["input_ids"].tolist()
    end = data.tokenizer.eos_token_id
    counts = [sum(row[place] != end for place in told_by_a_copy(row)) for row in rows]
    assert int(group.sum()) == round(len(rows) / 4)
    taken = [count for count, chosen in zip(counts, group.tolist(), strict=True) if chosen]
    left = [count for count, chosen in zip(counts, group.tolist(), strict=True) if not chosen]
    assert min(taken) >= max(left)
    assert min(taken) > min(left)


def test_rare_pairs_are_those_of_the_whole_corpus(text):
    data = text(rich_class="rare", classes={"rare": ClassSpec(max_bigram_frequency=2e-3)}, rich_share=0.3)
    group = data.training_groups()["rich_in_rare"]
    ids = data.train_rows.table[:]["input_ids"]
    rare = (BigramTable.count(ids).frequency(ids) <= 2e-3) & (ids[:, 1:] != data.tokenizer.eos_token_id)
    counts = rare.sum(1)
    assert int(group.sum()) == round(0.3 * len(ids))
    assert counts[group].min() >= counts[~group].max()


def test_the_group_depends_on_the_tokens_alone(text):
    one, other = text(rich_class="induction", seed=1), text(rich_class="induction", seed=2)
    first, second = (data.training_groups()["rich_in_induction"] for data in (one, other))
    assert torch.equal(first, second)
    assert not torch.equal(one.probe_data().observed["input_ids"], other.probe_data().observed["input_ids"])


def test_repeated_segments_are_not_among_the_rich(text):
    data = text(rich_class="induction", induction_fraction=0.3, context=64, max_segment=8)
    groups = data.training_groups()
    assert list(groups) == ["induction", "text", "rich_in_induction"]
    assert not (groups["rich_in_induction"] & groups["induction"]).any()
    assert int(groups["rich_in_induction"].sum()) == round(0.25 * int(groups["text"].sum()))


def test_without_a_rich_class_nothing_changes(text):
    data = text()
    assert list(data.training_groups()) == ["text"]
    assert isinstance(data.train_dataloader(), ResumableLoader)


def test_with_a_rich_class_batches_have_the_group_and_the_same_order(text):
    plain, rich = text(seed=3).train_dataloader(), text(seed=3, rich_class="induction")
    loader = rich.train_dataloader()
    assert isinstance(loader, ReweightedLoader)
    for first, second in zip(plain, loader, strict=True):
        assert torch.equal(first["input_ids"], second["input_ids"])
        assert set(second["groups"]) == {"text", "rich_in_induction"}


def test_groups_are_copies(text):
    data = text(rich_class="induction")
    data.training_groups()["rich_in_induction"].zero_()
    assert data.training_groups()["rich_in_induction"].any()
    assert issubclass(TextData, SequenceData)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rich_class": "nouns"}, "got class 'nouns'; expected one of"),
        ({"rich_class": "induction", "rich_share": 0.0}, "got rich_share=0.0"),
        ({"rich_class": "induction", "rich_share": 1.0}, "got rich_share=1.0"),
        ({"rich_share": -0.5}, "got rich_share=-0.5"),
    ],
)
def test_bad_settings_are_refused_before_any_text_is_read(text, changed, words):
    with pytest.raises(InputError, match=words):
        text(corpus="/no/such/folder", **changed)


def test_a_class_that_too_few_sequences_have_is_named(text):
    data = text(rich_class="absent", classes={"absent": ClassSpec(pattern="no such word")})
    with pytest.raises(InputError, match=r"of which 0 have a target of class 'absent'; expected \d+ that have one"):
        data.training_groups()


def test_shares_are_of_all_targets_also_over_many_rows():
    ids = torch.randint(0, 5, (1100, 12), generator=torch.Generator().manual_seed(0))
    shares = share_of_targets(ids, induction_targets)
    assert shares.dtype == torch.float64
    for row in (0, 511, 512, 1099):
        assert shares[row].item() == pytest.approx(len(told_by_a_copy(ids[row].tolist())) / 11)


def test_among_equals_the_first_come_first():
    shares = torch.tensor([0.1, 0.5, 0.3, 0.3, 0.3, 0.0])
    assert richest(shares, 0.5, "c").tolist() == [False, True, True, True, False, False]


@pytest.mark.parametrize(
    ("shares", "share", "words"),
    [
        ([0.5, 0.2, 0.1], 0.1, "which is 0 of them"),
        ([0.5, 0.2, 0.1], 0.9, "which is 3 of them"),
        ([0.5, 0.0, 0.0, 0.0], 0.5, "of which 1 have a target of class 'c'; expected 2"),
        ([0.5, 0.2], 1.5, "got share=1.5"),
    ],
)
def test_shares_that_cannot_be_taken_are_refused(shares, share, words):
    with pytest.raises(InputError, match=words):
        richest(torch.tensor(shares), share, "c")
