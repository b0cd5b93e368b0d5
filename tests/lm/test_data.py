from itertools import islice

import pytest
import torch

from stagewise.errors import InputError
from stagewise.interventions.loader import ReweightedLoader
from stagewise.lm import SyntheticData, TextData
from stagewise.lm.text import hold_out, token_rows
from stagewise.lm.tokens import induction_targets
from stagewise.loading.loader import ResumableLoader

SMALL = {"num_sequences": 256, "num_val": 16, "num_observed": 8, "num_sampling": 16, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    for index in range(30):
        lines = [f"def name_{index}_{line}(value): return value + {line * index}\n" for line in range(12)]
        (root / f"file_{index:02}.py").write_text("".join(lines))
    return root


@pytest.fixture
def text(folder, tmp_path):
    return TextData(corpus=str(folder), vocab_size=300, cache_dir=str(tmp_path), held_out_fraction=0.2, **SMALL)


def test_the_mixture_has_the_asked_share_of_repeats():
    data = SyntheticData(num_sequences=4000, max_segment=8)
    data.setup()
    # Two copies and more of at most 8 tokens: the last 16 tokens repeat with a period of 4 to 8.
    ids = data.train_rows.ids
    periodic = torch.stack([(ids[:, p:] == ids[:, :-p]).all(1) for p in range(4, 9)]).any(0)
    assert abs(periodic.float().mean().item() - 0.25) < 0.03


def test_batches_are_mappings_of_token_ids_with_the_kind_of_each_sequence(text):
    for data, other in ((SyntheticData(**SMALL), "background"), (text, "text")):
        batch = next(iter(data.train_dataloader()))
        assert set(batch) == {"input_ids", "groups"}
        assert set(batch["groups"]) == {"induction", other}
        assert batch["input_ids"].shape == (8, 32)
        assert batch["input_ids"].dtype == torch.int64
        assert next(iter(data.val_dataloader()))["input_ids"].shape == (8, 32)


def test_the_same_seed_gives_the_same_data_and_another_gives_other_data():
    def all_of(seed):
        data = SyntheticData(seed=seed, **SMALL)
        probe = data.probe_data()
        data.setup()
        return [data.train_rows.ids, data.val_rows.ids, probe.observed["input_ids"], probe.sampling["input_ids"]]

    assert all(torch.equal(a, b) for a, b in zip(all_of(1), all_of(1), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(all_of(1), all_of(2), strict=True))


def test_observed_and_sampling_sequences_are_not_training_sequences():
    data = SyntheticData(**SMALL)
    data.setup()
    probe = data.probe_data()
    train = {tuple(row) for row in data.train_rows.ids.tolist()}
    for batch in (probe.observed, probe.sampling):
        assert not train & {tuple(row) for row in batch["input_ids"].tolist()}


def test_what_is_drawn_for_one_purpose_is_never_drawn_for_another():
    data = SyntheticData(**SMALL)
    for draw in (data._mixture, lambda num, stream: data._repeats(num, stream)[0]):
        drawn = [{tuple(row) for row in draw(50, stream).tolist()} for stream in (1, 2, 3, 4)]
        assert len(set.union(*drawn)) == sum(len(rows) for rows in drawn)


def test_synthetic_groups_are_exact_and_apart():
    probe = SyntheticData(**SMALL).probe_data()
    ids, groups = probe.observed["input_ids"], probe.groups
    assert ids.shape == (16, 32)
    assert groups["background"][:8].all()
    assert not groups["background"][8:].any()
    assert torch.equal(groups["first_copy"], ~(groups["induction"] | groups["background"]))
    assert not groups["induction"][:8].any()
    assert groups["induction"][8:].any(1).all()
    assert (induction_targets(ids) | ~groups["induction"]).all()


def test_without_induction_sequences_there_is_no_induction_group(text):
    probe = SyntheticData(induction_fraction=0.0, **SMALL).probe_data()
    assert set(probe.groups) == {"background"}
    assert len(probe.observed["input_ids"]) == 8
    text.induction_fraction = 0.0
    assert len(text.probe_data().observed["input_ids"]) == 8
    assert len(text.train_rows) == len(text.train_rows.table)


def test_held_out_documents_are_not_trained_on(folder, text):
    documents = [path.read_text() for path in sorted(folder.iterdir())]
    train, held = hold_out(documents, 0.2)
    assert len(held) == 6
    assert not set(train) & set(held)
    assert sorted(train + held) == sorted(documents)
    text.setup()
    unseen = {tuple(row) for row in token_rows(held, text.tokenizer, 32).tolist()}
    observed = {tuple(row) for row in text.probe_data().observed["input_ids"][:8].tolist()}
    checked = {tuple(row) for row in text.val_rows.ids.tolist()}
    assert observed <= unseen
    assert checked <= unseen
    assert not observed & checked


def test_a_lone_document_is_cut_in_two():
    train, held = hold_out(["".join(f"line {i}\n" for i in range(100))], 0.1)
    assert train[0].endswith("line 89\n")
    assert held[0].startswith("line 90\n")
    with pytest.raises(InputError, match="one line"):
        hold_out(["one line"], 0.1)


def test_text_groups_cover_text_and_first_copies_are_what_no_copy_tells(text):
    probe = text.probe_data()
    assert set(probe.groups) == {"induction", "delimiter", "rest", "first_copy"}
    covered = torch.stack([mask for name, mask in probe.groups.items() if name != "first_copy"]).any(0)
    assert covered[:8].all()
    assert torch.equal(covered[8:], probe.groups["induction"][8:])
    assert not probe.groups["first_copy"][:8].any()
    assert torch.equal(probe.groups["first_copy"][8:], ~probe.groups["induction"][8:])
    assert torch.equal(probe.groups["induction"][:8], induction_targets(probe.observed["input_ids"][:8]))


def test_text_rows_decode_to_the_text_again(text):
    text.setup()
    document = "def café(x):\n\treturn x  # 3 €\n" * 20
    rows = token_rows([document], text.tokenizer, 4)
    assert document.startswith(text.tokenizer.decode(rows.flatten().tolist()).replace("<|endoftext|>", ""))


def is_periodic(ids):
    """Whether the last half of each row repeats with some period of 4 to 16 tokens."""
    return torch.stack([(ids[:, p:] == ids[:, :-p]).all(1) for p in range(4, 17)]).any(0)


def test_training_groups_are_the_kinds_of_sequences(text):
    for data, other in ((SyntheticData(**SMALL), "background"), (text, "text")):
        groups = data.training_groups()
        ids = data.train_rows[torch.arange(len(data.train_rows))]["input_ids"]
        assert torch.equal(groups["induction"], is_periodic(ids))
        assert torch.equal(groups[other], ~groups["induction"])
        batch = next(iter(data.train_dataloader()))
        assert torch.equal(batch["groups"]["induction"], is_periodic(batch["input_ids"]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_without_weights_batches_are_bit_for_bit_those_of_the_resumable_loader(text, num_workers):
    for data in (SyntheticData(num_workers=num_workers, seed=5, **SMALL), text):
        loader = data.train_dataloader()
        assert isinstance(loader, ReweightedLoader)
        plain = ResumableLoader(data.train_rows, 8, seed=data.seed)
        assert len(loader) == len(plain)
        expected = [batch["input_ids"] for _ in range(2) for batch in plain]
        found, states = [], []
        for _ in range(2):
            for batch in loader:
                found.append(batch["input_ids"])
                states.append(loader.state_dict())
        assert torch.equal(torch.stack(found), torch.stack(expected))
        for taken in (3, len(plain), len(plain) + 2):
            again = data.train_dataloader()
            again.load_state_dict(states[taken - 1])
            rest = [batch["input_ids"] for batch in again]
            last = 2 * len(plain) if taken >= len(plain) else len(plain)
            assert torch.equal(torch.stack(rest), torch.stack(expected[taken:last]))


def test_weights_change_how_often_a_kind_is_drawn():
    data = SyntheticData(**SMALL)
    loader = data.train_dataloader()
    loader.weights_for = lambda number: {"induction": 0.0} if number < 10 else {}
    shares = [batch["groups"]["induction"].float().mean().item() for batch in islice(loader, 10)]
    assert shares == [0.0] * 10


def test_without_induction_sequences_the_loader_has_no_groups(text):
    text.induction_fraction = 0.0
    for data, name in ((SyntheticData(induction_fraction=0.0, **SMALL), "background"), (text, "text")):
        assert isinstance(data.train_dataloader(), ResumableLoader)
        assert set(data.training_groups()) == {name}
        assert data.training_groups()[name].all()
        assert set(next(iter(data.train_dataloader()))) == {"input_ids"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 1}, "context=1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"induction_fraction": 1.0}, "induction_fraction=1.0"),
        ({"context": 12}, "shorten the segments"),
        ({"num_sequences": 3}, "at least one batch"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, message):
    with pytest.raises(InputError, match=message):
        SyntheticData(**settings)


def test_a_corpus_too_small_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one line\nanother line\n" * 4)
    with pytest.raises(InputError, match="give more text"):
        TextData(corpus=str(tmp_path), vocab_size=300, cache_dir=str(tmp_path)).setup()
