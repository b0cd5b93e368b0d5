import shutil
from dataclasses import replace

import torch

from stagewise.sweep.find_checkpoints import find_checkpoints
from stagewise.sweep.left_out import notes_on
from tests.sweep.lens_reference import random_state
from tests.sweep.test_find_checkpoints import named
from tests.sweep.test_lightning_files import MODEL, save
from tests.sweep.tiny import VOCAB, tiny_config


def notes(config):
    return notes_on(find_checkpoints(config), config)


def test_nothing_is_told_where_nothing_is_left_out(checkpoints, tmp_path):
    assert notes(tiny_config(tmp_path, checkpoints)) == []


def test_folders_of_checkpoints_that_are_not_taken_are_told_with_the_reason(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "step500", "final")
    for name in ("gpt2", "tmp-checkpoint-700", ".cache"):
        shutil.copytree(checkpoints / "step1", folder / name)
    (folder / "runs").mkdir()
    save(folder, "epoch=0-step=9")
    torch.save({}, folder / "step8.pth")
    config = tiny_config(tmp_path, folder)
    assert find_checkpoints(config).steps() == [500]
    assert notes(config) == [
        "left out final, gpt2, whose names contain no training step",
        "left out tmp-checkpoint-700, which the Trainer had not finished",
        "left out epoch=0-step=9.ckpt, step8.pth, next to Hugging Face checkpoints",
    ]


def test_what_settings_leave_out_is_not_told_and_listed_names_that_are_not_there_are(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "stage1-step500", "stage2-step100")
    config = tiny_config(tmp_path, folder, branch="stage1")
    assert notes(config) == []
    listed = replace(config, branch=None, name_steps={"stage1-step500": 5, "other": 6})
    assert notes(listed) == ["no checkpoint other of name_steps; going on with the 1 found"]
    assert notes(replace(config, branch=None, step_pattern=r"stage1-step(\d+)")) == []


def test_state_dicts_and_files_of_several_folders_are_told_too(tmp_path):
    (tmp_path / "lens").mkdir()
    for name in ("step5", "gpt2"):
        torch.save(random_state(seed=0, vocab=VOCAB, context=32), tmp_path / "lens" / f"{name}.pth")
    assert notes(tiny_config(tmp_path, tmp_path / "lens")) == ["left out gpt2, whose names contain no training step"]
    save(tmp_path / "runs", "version_0/step=5", "version_1/step=9")
    (words,) = notes(tiny_config(tmp_path, tmp_path / "runs", model=MODEL))
    assert words.startswith("files of 2 folders are taken as one run: ")
    assert "version_0, " in words
    assert words.endswith("version_1")
