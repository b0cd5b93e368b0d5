"""What a sweep refuses, before the work where it can be known, and what stays then."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stagewise.errors import InputError
from stagewise.jobs.sharing import Backend
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import SGLDConfig
from stagewise.sweep.cell import cell_folder, is_finished
from stagewise.sweep.config import CircuitSettings
from stagewise.sweep.study import prepare_sweep
from tests.sweep.tiny import SGLD, model, save_checkpoints, swept, tiny_config, tokenizer

REFUSED = {
    "steps none of which is there": ({"steps": [5, 3]}, r"got steps 3, 5, of.*expected some of 1, 2, 4"),
    "a folder without checkpoints": ({"checkpoints": "{tmp}/empty"}, "in which there is none"),
    "a path that does not exist": ({"checkpoints": "{tmp}/nowhere"}, "a path that does not exist"),
    "a hub name without steps": ({"checkpoints": "some/model"}, "without steps"),
    "ckpt without a model": ({"checkpoints": "{tmp}/ckpt"}, "without a model description"),
    "sequences beyond the context": ({"data": {"context": 33}}, "expected at most 32, the context of the model"),
    "a tokenizer that does not fit": (
        {"data": {"tokenizer": "{tmp}/large"}},
        r"tokens beyond .* of 320, such as ', gamma' \(id 327\)",
    ),
    "a corpus that is too small": ({"data": {"num_sampling": 10**6}}, "data.num_sampling"),
    "a backend that is not installed": ({"backend": Backend.ray}, "ray"),
    "a device that is not there": ({"device": "cuda:99"}, "got device=cuda:99"),
    "a parameter pattern that matches nothing": ({"sgld": replace(SGLD, parameters=["no.such"])}, "no.such"),
    "memory": ({"probe": ProbeConfig(memory_limit_gib=1e-6)}, "GiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_and_nothing_is_written(checkpoints, tmp_path, case):
    changed, words = REFUSED[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "step=1.ckpt").write_bytes(b"")
    large = tokenizer(begins=True)
    if case == "a tokenizer that does not fit":
        from copy import deepcopy

        large = deepcopy(large)
        large.add_tokens([*(f"word{number}" for number in range(40)), ", gamma"])
        large.save_pretrained(tmp_path / "large")
    base = tiny_config(tmp_path, checkpoints)

    def filled(value):
        return value.format(tmp=tmp_path) if isinstance(value, str) else value

    given = {
        name: replace(base.data, **{key: filled(item) for key, item in value.items()})
        if name == "data"
        else filled(value)
        for name, value in changed.items()
    }
    with pytest.raises(InputError, match=words) as caught:
        swept(replace(base, **given))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_folder_of_another_run_is_refused(checkpoints, tmp_path):
    config = tiny_config(tmp_path, checkpoints)
    (tmp_path / "out" / "influence.zarr").mkdir(parents=True)
    with pytest.raises(InputError, match="probes of another run"):
        prepare_sweep(config)


def test_an_output_that_is_a_file_is_refused(checkpoints, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="which is a file"):
        prepare_sweep(tiny_config(tmp_path, checkpoints))


def test_a_cell_that_cannot_be_read_is_named(checkpoints, tmp_path):
    config = tiny_config(tmp_path, checkpoints, steps=[1], circuits=CircuitSettings(enabled=False))
    swept(config)
    (cell_folder(Path(config.output), 1, "all") / "cell.json").write_text("{")
    with pytest.raises(InputError, match="delete it"):
        swept(config)


def test_a_checkpoint_whose_weights_are_not_finite_is_refused_by_its_step_and_earlier_cells_stay(tmp_path):
    folder = save_checkpoints(tmp_path / "checkpoints", steps=[1, 2])
    broken = model(seed=2)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    broken.save_pretrained(folder / "step2")
    with pytest.raises(InputError, match=r"at step 2: got .* not finite"):
        swept(tiny_config(tmp_path, folder))
    assert is_finished(tmp_path / "out", 1, "all")
    assert not is_finished(tmp_path / "out", 2, "all")
    assert [path.name for path in (tmp_path / "out" / "circuits").iterdir()] == ["step1.json"]


def test_an_engine_that_cannot_run_the_model_is_refused_with_the_step(checkpoints, tmp_path, monkeypatch):
    def cannot(*_, **__):
        raise InputError("got engine=batched, which cannot run this module")

    monkeypatch.setattr(ChainSampler, "run", cannot)
    with pytest.raises(InputError, match="at step 1: got engine=batched"):
        swept(tiny_config(tmp_path, checkpoints))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sgld": SGLDConfig(lr="auto", engine="sequential")}, "sgld.lr=auto"),
        ({"sgld": replace(SGLD, engine="auto")}, "sgld.engine=auto"),
        ({"probe": ProbeConfig(reference_ratio=1.3)}, "reference_ratio=1.3"),
        ({"components": ["all", "head"]}, "'head'"),
        ({"components": []}, "components"),
        ({"steps": [1, 1]}, "steps"),
        ({"num_workers": 0}, "num_workers"),
        ({"model": {"init_args": {}}}, "class_path"),
    ],
)
def test_settings_out_of_range_are_refused(checkpoints, tmp_path, changed, words):
    with pytest.raises(InputError, match=words):
        tiny_config(tmp_path, checkpoints, **changed)
