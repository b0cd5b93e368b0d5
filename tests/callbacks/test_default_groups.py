"""Default groups of runs, from labels or tokens; training and runs with groups do not change."""

import lightning.pytorch as pl
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader, TensorDataset
from transformers import PreTrainedTokenizerFast

from stagewise import InfluenceCallback, ProbeConfig, open_run
from stagewise.callbacks.tokenizers import find_tokenizer, token_ids
from stagewise.lm.tokens import text_groups
from tests.callbacks import language_runs
from tests.callbacks.runs import EVERY_2, SGLD, Classifier, fit

WORDS = ["def", "(", ")", ":", "return", "x", "y", "+", ".", "if", "else", "end"]


def small_tokenizer(words=WORDS):
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({word: at for at, word in enumerate(words)})))


class Pairs(Classifier):
    def per_sample_loss(self, batch):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1], reduction="none")

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss(batch).mean()


def pairs():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(80, 3, generator=generator), torch.arange(80) % 2)


def names_of(callback):
    return open_run(callback.folder)["group"].values.tolist()


def test_labels_of_pairs_become_groups_reported_in_one_line(tmp_path, capsys, caplog):
    callback = InfluenceCallback(EVERY_2, SGLD)
    with caplog.at_level("INFO"):
        fit(tmp_path, Pairs(), pairs(), callback)
    assert names_of(callback) == ["label 0", "label 1"]
    told = [message for message in caplog.messages if "no groups are given" in message]
    assert told == [
        "stagewise: no groups are given, so the groups are the 2 labels of the observed set: label 0, label 1; "
        "groups={} for none"
    ]
    assert (callback.folder / "classes.md").read_text().count("label 0") == 3


@pytest.mark.parametrize("given", [{}, {"first": torch.arange(64) < 8}])
def test_given_groups_and_empty_groups_are_kept(tmp_path, given, caplog):
    callback = InfluenceCallback(EVERY_2, SGLD, groups=given)
    with caplog.at_level("INFO"):
        fit(tmp_path, Pairs(), pairs(), callback)
    assert names_of(callback) == (list(given) or ["all"])
    assert not [message for message in caplog.messages if "no groups are given" in message]


def test_training_is_unchanged_bit_for_bit(tmp_path):
    states = []
    for name, enabled in (("with", True), ("without", False)):
        torch.manual_seed(0)
        module = Pairs()
        fit(tmp_path / name, module, pairs(), InfluenceCallback(EVERY_2, SGLD, enabled=enabled))
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("kept", [True, False])
def test_words_of_samples_are_stored_unless_disabled(tmp_path, kept):
    callback = InfluenceCallback(EVERY_2, SGLD, sample_words=kept)
    fit(tmp_path, Pairs(), pairs(), callback)
    run, path = open_run(callback.folder), callback.folder / "samples.zip"
    assert path.exists() is kept
    if kept:
        assert run["sample_words"].values.tolist() == [f"label {row % 2}" for row in range(64)]
        assert run["in_group"].sel(group="label 1").values.tolist() == [row % 2 == 1 for row in range(64)]
        path.unlink()
    else:
        assert "sample_words" not in run.coords
    assert b"label 1" not in b"".join(item.read_bytes() for item in path.parent.glob("*.json"))


def resumed(folder, callback, ckpt_path=None, max_steps=6):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(0)
    trainer.fit(Pairs(), DataLoader(pairs(), 8), ckpt_path=ckpt_path)
    return trainer


def test_a_resumed_run_keeps_its_groups_and_gains_none_from_an_earlier_version(tmp_path):
    before = InfluenceCallback(EVERY_2, SGLD)
    path = tmp_path / "new.ckpt"
    resumed(tmp_path / "before", before).save_checkpoint(path)
    after = InfluenceCallback(EVERY_2, SGLD)
    resumed(tmp_path / "after", after, ckpt_path=path, max_steps=8)
    assert names_of(after) == ["label 0", "label 1"]

    # An earlier version had none, and its checkpoints do not know the question.
    before = InfluenceCallback(EVERY_2, SGLD, groups={})
    resumed(tmp_path / "old", before).save_checkpoint(path)
    content = torch.load(path, weights_only=False)
    (state,) = [callback for callback in content["callbacks"].values() if "finds_groups" in callback]
    del state["finds_groups"]
    torch.save(content, path)
    for max_steps in (8, 10):  # nor does a checkpoint of the resumed run
        after = InfluenceCallback(EVERY_2, SGLD)
        folder = tmp_path / f"to{max_steps}"
        resumed(folder, after, ckpt_path=path, max_steps=max_steps).save_checkpoint(path)
        assert names_of(after) == ["all"]


@pytest.fixture
def module():
    return language_runs.language_model()


@pytest.mark.parametrize("owner", ["module", "collate_fn"])
def test_token_classes_of_a_language_model_with_a_tokenizer_become_groups(tmp_path, module, owner):
    tokenizer = small_tokenizer()
    if owner == "module":
        module.tokenizer = tokenizer
    callback = InfluenceCallback(language_runs.SCHEDULE, language_runs.SGLD)
    if owner == "module":
        language_runs.fit(tmp_path, module, [callback], max_steps=2)
    else:

        class Collator:
            def __init__(self):
                self.tokenizer = tokenizer

            def __call__(self, rows):
                return {"input_ids": torch.stack(rows)}

        trainer = pl.Trainer(
            accelerator="cpu", max_steps=2, callbacks=[callback], default_root_dir=tmp_path, enable_progress_bar=False
        )
        trainer.fit(module, DataLoader(list(language_runs.rows()), 8, collate_fn=Collator()))
    ids = language_runs.rows()
    observed = open_run(callback.folder)["sample_words"].values
    assert set(observed) <= set(tokenizer.batch_decode(ids))
    expected = text_groups(ids, tokenizer)
    run = open_run(callback.folder)
    assert run["group"].values.tolist() == ["induction", "delimiter", "rest"]
    if owner == "collate_fn":  # the 40 rows in their order
        losses = run["anchor_loss"].isel(step=0).values
        for name, mask in expected.items():
            assert float(run["group_loss"].sel(group=name)[0]) == pytest.approx(losses[mask.numpy()].mean(), rel=1e-6)


@pytest.mark.parametrize("why", ["no tokenizer", "a small vocabulary", "losses of sequences", "no groups wanted"])
def test_a_language_model_has_no_token_classes_if_they_do_not_fit(tmp_path, module, why):
    settings = {}
    if why != "no tokenizer":
        module.tokenizer = small_tokenizer(WORDS[:5] if why == "a small vocabulary" else WORDS)
    if why == "losses of sequences":

        def loss_fn(module, batch):
            losses, mask = module.per_sample_loss(batch)
            return (losses * mask).sum(dim=1)

        settings["loss_fn"] = loss_fn
    if why == "no groups wanted":
        settings["groups"] = {}
    callback = InfluenceCallback(language_runs.SCHEDULE, language_runs.SGLD, ProbeConfig(), **settings)
    language_runs.fit(tmp_path, module, [callback], max_steps=2)
    assert names_of(callback) == ["all"]


def test_the_search_for_token_classes_does_not_change_training(tmp_path):
    states = []
    for enabled in (True, False):
        module = language_runs.language_model()
        module.tokenizer = small_tokenizer()
        callback = InfluenceCallback(language_runs.SCHEDULE, language_runs.SGLD, enabled=enabled)
        language_runs.fit(tmp_path / str(enabled), module, [callback], max_steps=4)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_tokenizer_of_a_model_on_disk_is_found_by_its_name(tmp_path, module):
    small_tokenizer().save_pretrained(tmp_path)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert find_tokenizer(trainer, module) is None
    module.model.config._name_or_path = module.model.name_or_path = str(tmp_path)
    found = find_tokenizer(trainer, module)
    assert found.tokenizer.get_vocab() == {word: at for at, word in enumerate(WORDS)}
    # One of more tokens than the model has is not that of the text.
    small_tokenizer([*WORDS, "more"]).save_pretrained(tmp_path)
    assert find_tokenizer(trainer, module) is None
    module.model.name_or_path = "no/such-model"
    assert find_tokenizer(trainer, module) is None


def test_token_ids_are_found_in_the_batch_formats_of_language_models():
    ids = torch.randint(5, (3, 4))
    for batch in (ids, (ids,), [ids.int()], {"input_ids": ids, "labels": ids}):
        assert token_ids(batch).tolist() == ids.tolist()
    for batch in (ids.float(), ids[:, :1], ids[0], (ids, ids), {"x": ids}, {"input_ids": ids.float()}):
        assert token_ids(batch) is None
