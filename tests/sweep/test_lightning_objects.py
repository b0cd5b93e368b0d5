"""Checkpoints of Lightning whose hyperparameters are more than plain data."""

import enum
import os
import pickle
from collections import OrderedDict
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from stagewise.errors import InputError
from stagewise.lm.module import CausalLM
from stagewise.runs.open import open_run
from stagewise.sweep.checkpoint_names import NameRules
from stagewise.sweep.inert_pickle import Inert, read_tensors
from stagewise.sweep.lightning_files import lightning_files, lightning_weights, read_lightning
from tests.sweep.tiny import FAMILIES, swept, tiny_config, tokenizer


class Mode(enum.Enum):
    A = 1


class Tuned(CausalLM):
    """With arguments of all kinds in its hyperparameters."""

    def __init__(self, config: dict | None = None, loss=None, mode: Mode = Mode.A, schedule=None):
        super().__init__("gpt_neox", config=config)
        self.save_hyperparameters()


OBJECTS = {
    "plain": {},
    "a module": {"loss": nn.CrossEntropyLoss()},
    "a class": {"loss": nn.CrossEntropyLoss},
    "a function": {"schedule": partial(max, 3)},
    "a member": {"mode": Mode.A},
}


def trained(folder, weights_only, **objects):
    """Checkpoints of steps 2 and 4; returns the module as it ended."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = Tuned(FAMILIES["gpt_neox"], **objects)
    rows = [{"input_ids": row} for row in torch.randint(0, 280, (32, 8))]
    saver = ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, save_weights_only=weights_only)
    trainer = pl.Trainer(
        max_steps=4,
        accelerator="cpu",
        logger=False,
        callbacks=[saver],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(rows, batch_size=8))
    return module


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("objects", OBJECTS)
def test_weights_are_read_whatever_the_hyperparameters_hold(tmp_path, objects, weights_only):
    module = trained(tmp_path, weights_only, **OBJECTS[objects])
    files = lightning_files(list(tmp_path.glob("*.ckpt")))
    assert sorted(files) == [2, 4]
    weights = lightning_weights(files[4].path)
    assert list(weights) == list(module.state_dict())
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert read_lightning(files[4].path)["global_step"] == 4


def test_a_sweep_runs_over_them_with_a_member_as_default(tmp_path):
    """The settings that are kept beside the cells hold it by its name."""
    trained(tmp_path / "them", False, loss=nn.CrossEntropyLoss())
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    described = {"class_path": f"{__name__}.Tuned", "init_args": {"config": FAMILIES["gpt_neox"], "mode": Mode.A}}
    config = tiny_config(tmp_path, tmp_path / "them", model=described)
    data = {**config.data.__dict__, "tokenizer": str(tmp_path / "tokenizer")}
    config = tiny_config(tmp_path, tmp_path / "them", model=described, data=type(config.data)(**data))
    assert swept(config).steps == (2, 4)
    swept(config)  # compares with what was kept
    assert open_run(config.output)["step"].values.tolist() == [2, 4]
    assert '"mode": "A"' in (tmp_path / "out" / "settings.json").read_text()


class Bomb:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_nothing_that_a_file_names_is_run(tmp_path):
    weights = OrderedDict(a=torch.arange(3.0), b=nn.Parameter(torch.ones(2, dtype=torch.bfloat16)))
    content = {"global_step": 7, "state_dict": weights, "hyper_parameters": {"x": Bomb(tmp_path / "mark")}}
    torch.save(content, tmp_path / "a.ckpt")
    found = read_tensors(tmp_path / "a.ckpt")
    assert not (tmp_path / "mark").exists()
    assert isinstance(found["hyper_parameters"]["x"], Inert)
    assert torch.equal(found["state_dict"]["a"], weights["a"])
    assert found["state_dict"]["b"].dtype == torch.bfloat16
    assert lightning_files([tmp_path / "a.ckpt"])[7].path == tmp_path / "a.ckpt"
    # The file does name it: pickle itself would run it.
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert (tmp_path / "mark").exists()


def test_objects_among_the_weights_are_refused_by_name_with_what_works(tmp_path):
    content = {"global_step": 7, "state_dict": {"a": torch.ones(2), "extra": Bomb(tmp_path / "mark")}}
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"'extra' in its state_dict, which is no tensor.*torch.save it again"):
        lightning_weights(tmp_path / "a.ckpt")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"nothing of the kind", "cannot be read"),
        (b"", "cannot be read"),
        (pickle.dumps({"a": 1}), "cannot be read"),
        ({"weights": 1}, r"without state_dict, with \['weights'\]"),
        ([1, 2], "holds a list"),
    ],
)
def test_files_that_are_none_of_lightning_are_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "step=1.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=words) as caught:
        lightning_weights(path)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_folder_of_shards_is_refused_with_how_to_put_them_together(tmp_path):
    (tmp_path / "step=1.ckpt").mkdir()
    with pytest.raises(InputError, match=r"a folder of shards.*consolidate_checkpoint"):
        lightning_weights(tmp_path / "step=1.ckpt")


def test_steps_of_files_are_told_by_names_or_by_a_pattern_and_versions_are_none(tmp_path):
    for name, step in (("last-v1", 9), ("step_20", 1), ("run3_e1_40", 3)):
        torch.save({"state_dict": {}, "global_step": step}, tmp_path / f"{name}.ckpt")
    files = list(tmp_path.glob("*.ckpt"))
    assert {step: file.name.name for step, file in lightning_files(files).items()} == {
        9: "last-v1",
        20: "step_20",
        3: "run3_e1_40",
    }
    assert lightning_files(files, NameRules(pattern=r"run\d_e\d_(\d+)"))[40].path.stem == "run3_e1_40"
