"""Chains of a run that move one component of a language model: results and refusals."""

import json
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from stagewise import EKFAC, AdamMoments, InfluenceCallback, InputError, ProbeConfig, SampleMatrices, open_run
from stagewise.callbacks.resume import check_unchanged
from stagewise.lm.components import component_masks
from stagewise.losses.contract import resolve_loss
from stagewise.probes.prober import Prober
from stagewise.sampling.data import ProbeData
from tests.callbacks.language_runs import AUTO, CONFIG, HEAD, SCHEDULE, SGLD, fit, language_model, rows
from tests.callbacks.runs import Regression, regression_data
from tests.callbacks.runs import fit as fit_regression

pytestmark = pytest.mark.filterwarnings("ignore")

QUIET = ProbeConfig(draw_matrices=False)
EVERYTHING = replace(QUIET, damped_influence=True, save_trace=True, sample_matrices=SampleMatrices.all)


class Weights(pl.Callback):
    """Callback that records the weights of every step."""

    def __init__(self):
        self.at = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.at[trainer.global_step] = {name: value.clone() for name, value in pl_module.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("component", [HEAD, "layer1"])
def test_probes_equal_those_of_a_prober_with_the_component_s_masks_bit_for_bit(tmp_path, component):
    weights = Weights()
    callback = InfluenceCallback(SCHEDULE, SGLD, EVERYTHING, component=component)
    trainer = fit(tmp_path, language_model(), [callback, weights])
    found = open_run(trainer.log_dir, trace=True)
    module = language_model()
    masks = component_masks(module, component)
    ids = rows()  # the training set: fewer samples than the callback would take
    data = ProbeData(observed={"input_ids": ids}, sampling={"input_ids": ids})
    prober = Prober(module, resolve_loss(module), data, sgld=SGLD, config=EVERYTHING, masks=masks)
    for step in (2, 4, 6):
        module.load_state_dict(weights.at[step])
        alone, _ = prober.probe(module, step, lr_sum=sum([0.01] * step))
        here = found.sel(step=step)
        assert {"graddot", "tracin", "damped_influence", "loss", "group_bif"} <= set(alone.data_vars)
        for name in set(alone.data_vars) - {"seconds"}:
            np.testing.assert_array_equal(here[name].values, alone[name].values, err_msg=name)
    assert found.attrs["moved_weights"] == sum(int(mask.sum()) for mask in masks.values())


def test_moments_of_the_optimizer_are_restricted_to_the_moving_entries(tmp_path):
    callback = InfluenceCallback(SCHEDULE, replace(SGLD, preconditioner=AdamMoments()), QUIET, component=HEAD)
    trainer = fit(tmp_path, language_model(), [callback])
    assert np.isfinite(open_run(trainer.log_dir)["group_bif"].sel(part="within")).all()


@pytest.mark.slow
def test_the_name_is_stored_with_the_results(tmp_path):
    callback = InfluenceCallback(SCHEDULE, SGLD, QUIET, component=HEAD)
    run = open_run(fit(tmp_path / "head", language_model(), [callback]).log_dir)
    assert run.attrs["component"] == HEAD
    assert json.loads(run.attrs["summary"])["component"] == HEAD
    run = open_run(fit(tmp_path / "all", language_model(), [InfluenceCallback(SCHEDULE, SGLD, QUIET)]).log_dir)
    assert "component" not in run.attrs
    assert json.loads(run.attrs["summary"])["component"] is None


@pytest.mark.parametrize("sgld", [SGLD, AUTO], ids=["checked", "auto"])
def test_training_is_unchanged_bit_for_bit(tmp_path, sgld):
    def everything(name, callbacks):
        module, weights = language_model(config={**CONFIG, "hidden_dropout": 0.3}), Weights()
        trainer = fit(tmp_path / name, module, [*callbacks, weights], max_steps=6)
        states = trainer.optimizers[0].state_dict()["state"]
        moments = {f"{number}.{key}": value for number, state in states.items() for key, value in state.items()}
        flags = torch.tensor([item.training for item in module.modules()])
        return [*weights.at.values(), moments, {"random": torch.get_rng_state(), "flags": flags}]

    alone = everything("alone", [])
    watched = everything("watched", [InfluenceCallback(SCHEDULE, sgld, QUIET, component=HEAD)])
    for before, after in zip(alone, watched, strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())


# Resuming


def resumable(folder, component, **more):
    callback = InfluenceCallback(SCHEDULE, SGLD, QUIET, component=component)
    saver = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=4, save_top_k=-1)
    return fit(folder, language_model(), [callback, saver], **more)


def checkpoint_of(folder):
    (path,) = (folder / "checkpoints").glob("*step=4.ckpt")
    return path


@pytest.fixture(scope="module")
def head_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    return resumable(folder, HEAD, max_steps=8), checkpoint_of(folder)


def test_a_resumed_run_equals_an_uninterrupted_one(head_run, tmp_path):
    whole, checkpoint = head_run
    resumed = resumable(tmp_path, HEAD, max_steps=8, ckpt_path=checkpoint)
    assert resumed.log_dir != whole.log_dir
    left, right = open_run(whole.log_dir), open_run(resumed.log_dir)
    assert right["step"].values.tolist() == [2, 4, 6, 8]
    for name in set(left.data_vars) - {"seconds"}:
        np.testing.assert_array_equal(left[name], right[name], err_msg=str(name))
    assert right.attrs["component"] == HEAD


@pytest.mark.parametrize(
    ("component", "words"), [("layer1.head1", "component layer1.head1"), (None, r"component null \(all weights\)")]
)
def test_resuming_with_another_component_or_none_is_refused(head_run, tmp_path, component, words):
    with pytest.raises(
        InputError, match=rf"got {words} for .*; expected that of its checkpoint, {HEAD}; change it back"
    ):
        resumable(tmp_path, component, max_steps=8, ckpt_path=head_run[1])


def test_resuming_a_run_without_a_component_with_one_is_refused(tmp_path):
    resumable(tmp_path, None, max_steps=4)
    with pytest.raises(InputError, match=rf"got component {HEAD} for .*; expected .*, null \(all weights\); "):
        resumable(tmp_path / "resumed", HEAD, max_steps=8, ckpt_path=checkpoint_of(tmp_path))


def test_two_names_of_the_same_weights_denote_the_same_component(head_run, tmp_path):
    trainer = resumable(tmp_path, "layer1.group0", max_steps=6, ckpt_path=head_run[1])
    assert open_run(trainer.log_dir)["step"].values.tolist() == [2, 4, 6]


def test_the_same_name_in_another_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"got component layer0 for .*, layer0 of other entries; "):
        check_unchanged({"masks": "abc", "component": "layer0"}, {"masks": "abd", "component": "layer0"})
    check_unchanged({"sgld": "x", "data": "y"}, {"sgld": "x", "data": "y"})  # as runs without a component have it


# Refusals


@pytest.mark.parametrize(
    ("component", "sgld", "words"),
    [
        ("layer7.head0", SGLD, "got layer=7; expected 0 to 1"),
        ("layer0.head2", SGLD, "got head=2; expected 0 to 1"),
        ("heads", SGLD, "expected a name such as 'layer0'"),
        ("all", SGLD, "expected a name such as 'layer0'"),
        (HEAD, replace(SGLD, parameters=["*dense*"]), "set sgld.parameters to null"),
        (HEAD, replace(SGLD, preconditioner=EKFAC(loss="cross_entropy")), "with EKFAC; expected another"),
        ("layer0.mlp", replace(SGLD, preconditioner=EKFAC(loss="cross_entropy")), "with EKFAC; expected another"),
    ],
)
def test_invalid_settings_are_refused_in_one_line_before_the_first_step(tmp_path, component, sgld, words):
    weights = Weights()
    with pytest.raises(InputError, match=r"got .*; expected ") as caught:
        fit(tmp_path, language_model(), [InfluenceCallback(SCHEDULE, sgld, component=component), weights])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not weights.at


def test_a_frozen_part_and_models_of_unknown_layout_are_refused(tmp_path):
    module = language_model()
    module.model.gpt_neox.layers[1].attention.dense.weight.requires_grad_(False)
    with pytest.raises(InputError, match="which is frozen; expected a trainable parameter"):
        fit(tmp_path, module, [InfluenceCallback(SCHEDULE, SGLD, component=HEAD)])
    with pytest.raises(InputError, match=r"got Regression, which holds no .*: leave the component out"):
        fit_regression(tmp_path, Regression(), regression_data(), InfluenceCallback(SCHEDULE, SGLD, component=HEAD))
    other = {"vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 8}
    with pytest.raises(InputError, match=r"got an architecture 'opt'; expected one of gpt_neox.*; leave the component"):
        fit(
            tmp_path,
            language_model("opt", config={**other, "max_position_embeddings": 8}, init_std=None),
            [InfluenceCallback(SCHEDULE, SGLD, component=HEAD)],
        )


def test_a_disabled_callback_does_not_check_the_component(tmp_path):
    callback = InfluenceCallback(SCHEDULE, SGLD, component="nonsense", enabled=False)
    fit_regression(tmp_path, Regression(), regression_data(), callback)
    assert callback.folder is None
