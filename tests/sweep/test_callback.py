"""A sweep over saved checkpoints finds what the callback found while the model trained."""

from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest

from stagewise.callbacks.influence import InfluenceCallback
from stagewise.influence.split import Centering
from stagewise.lm.data import TokenRows
from stagewise.lm.module import CausalLM
from stagewise.loading.loader import ResumableLoader
from stagewise.probes.config import ProbeConfig
from stagewise.probes.schedule import ProbeSchedule
from stagewise.runs.open import open_run
from stagewise.sweep.components import ALL
from stagewise.sweep.config import CircuitSettings
from stagewise.sweep.results import run_folder, write_results
from stagewise.sweep.study import prepare_sweep, run_cells
from tests.quiet_trainer import quiet_trainer
from tests.sweep.tiny import FAMILIES, save_checkpoints, tiny_config, tokenizer

STEPS = [1, 2, 4, 6]
MODEL = {
    "class_path": "stagewise.lm.module.CausalLM",
    "init_args": {"model_type": "gpt_neox", "config": FAMILIES["gpt_neox"], "lr": 0.01},
}


class Saver(pl.Callback):
    """Keeps every checkpoint that the callback probes, in both layouts."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step in STEPS:
            pl_module.model.save_pretrained(self.folder / "hf" / f"step{trainer.global_step}")
            trainer.save_checkpoint(self.folder / "ckpt" / f"run-step={trainer.global_step}.ckpt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, request):
    """A run with the callback, and the settings of a sweep over its checkpoints."""
    component = request.param
    folder = tmp_path_factory.mktemp("trained")
    probe = ProbeConfig(chunk_size=3, centering=Centering.step, save_trace=True)
    config = tiny_config(folder, save_checkpoints(folder / "any", steps=[1]), probe=probe)
    data = prepare_sweep(config).data
    callback = InfluenceCallback(
        ProbeSchedule(at_steps=STEPS),
        config.sgld,
        config.probe,
        observed=data.observed,
        sampling=data.sampling,
        groups=data.groups,
        component=None if component == ALL else component,
        output_dir=str(folder / "run"),
    )
    pl.seed_everything(1, verbose=False)
    trainer = quiet_trainer(
        max_steps=STEPS[-1], callbacks=[callback, Saver(folder)], logger=False, default_root_dir=folder
    )
    trainer.fit(CausalLM(**MODEL["init_args"]), ResumableLoader(TokenRows(data.sampling["input_ids"].repeat(6, 1)), 8))
    tokenizer().save_pretrained(folder / "hf")
    return folder, probe, component


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("trained", "layout"),
    [
        (ALL, "hf"),
        ("layer1.head0", "ckpt"),
        pytest.param(ALL, "ckpt", marks=pytest.mark.slow),
        pytest.param("layer1.head0", "hf", marks=pytest.mark.slow),
    ],
    indirect=["trained"],
)
def test_a_sweep_equals_the_callback_bit_for_bit(trained, layout, tmp_path):
    folder, probe, component = trained
    circuits = CircuitSettings(enabled=False)
    config = tiny_config(tmp_path, folder / layout, probe=probe, circuits=circuits, components=[component])
    if layout == "ckpt":
        config = replace(config, model=MODEL, data=replace(config.data, tokenizer=str(folder / "hf")))
    sweep = prepare_sweep(config)
    run_cells(sweep, lambda _: None)
    write_results(sweep)
    found = open_run(run_folder(Path(config.output), component), trace=True)
    expected = open_run(folder / "run", trace=True)
    assert expected["reference_step"].values.tolist() == [1, 1, 2, 4]
    assert found["step"].values.tolist() == STEPS
    left_out = {"seconds", "tracin"}  # TracIn needs the learning rate of training
    assert set(found.data_vars) | left_out == set(expected.data_vars) | left_out
    for name in set(found.variables) - left_out:
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
    assert (folder / "run" / "classes.md").read_bytes() == (Path(config.output) / "classes.md").read_bytes()
    assert expected.attrs.get("component", ALL) == component
    differing = {name for name in expected.attrs if found.attrs.get(name) != expected.attrs[name]}
    assert differing <= {"summary"}
