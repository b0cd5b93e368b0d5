"""Curvature, resolved settings and calibration of one component, compared with a dense block of the Hessian."""

import logging
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from stagewise import InfluenceCallback, InputError, ProbeConfig, ProbeSchedule, SGLDConfig
from stagewise.calibration.landscape import FINE_SAMPLES, Landscape
from stagewise.calibration.resolve import resolve
from stagewise.calibration.rules import EARLY_GROWTH
from stagewise.callbacks.calibration import CalibrationRun, CalibrationSettings
from stagewise.lm.components import component_masks
from stagewise.losses.contract import causal_lm_loss
from stagewise.sampling.chains import run_chains
from stagewise.sampling.preconditioners.diagonal import RMSprop
from stagewise.sampling.target import Target
from tests.callbacks.language_runs import AUTO, HEAD, SCHEDULE, SGLD, fit, language_model, rows

pytestmark = [pytest.mark.whole_probes(draw_matrices=False), pytest.mark.filterwarnings("ignore")]

BATCH = {"input_ids": rows()}  # the training set: fewer samples than curvature is measured on


def dense_block(module, component):
    """Returns second derivatives of the mean loss by the entries of a component, row by row."""
    masks = component_masks(module, component)
    parameters = dict(module.named_parameters())
    module.eval()

    def chosen(parts):
        return torch.cat([part[masks[name]] for name, part in zip(masks, parts, strict=True)])

    leaves = [parameters[name] for name in masks]
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        loss = causal_lm_loss(module.model, BATCH)[0].mean()
        slope = chosen(torch.autograd.grad(loss, leaves, create_graph=True))
        block = [chosen(torch.autograd.grad(item, leaves, retain_graph=True, materialize_grads=True)) for item in slope]
    return torch.stack(block).double()


def calibrate(folder, influence, **settings):
    """Returns the calibration of a run of 4 steps, and its module with the weights of the last step."""
    module = language_model()
    run = CalibrationRun(influence, CalibrationSettings(num_steps=1, num_chains=2, num_draws=8, **settings))
    fit(folder, module, [run], max_steps=4)
    return run.result, module


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    influence = InfluenceCallback(ProbeSchedule(at_steps=[4]), AUTO, component=HEAD)
    return calibrate(tmp_path_factory.mktemp("calibrated"), influence, max_rise=100.0)


def test_calibration_measures_the_block_of_the_component(calibrated):
    found, module = calibrated
    values = torch.linalg.eigvalsh(dense_block(module, HEAD))
    norm = values.abs().max().item()
    (measured,) = found.measurements
    assert measured.plain.lam_max == pytest.approx(values[-1].item(), abs=0.05 * norm)
    assert measured.plain.lam_min == pytest.approx(values[0].item(), abs=0.05 * norm)
    # And not that of all weights.
    whole = Landscape(Target(lambda item, batch: causal_lm_loss(item.model, batch), BATCH)).measure(module, SGLD)
    assert whole.plain.lam_max > 2 * measured.plain.lam_max


def test_chains_of_a_calibration_equal_those_of_the_component_bit_for_bit(calibrated):
    found, module = calibrated
    alone = run_chains(
        module,
        lambda item, batch: causal_lm_loss(item.model, batch),
        observed=BATCH,
        sampling=BATCH,
        config=found.proposed,
        step=4,
        masks=component_masks(module, HEAD),
    )
    assert torch.equal(torch.from_numpy(found.traces[0].loss), torch.from_numpy(alone.loss))


def test_a_calibration_names_its_component(calibrated):
    found, _ = calibrated
    assert found.as_dict()["component"] == HEAD
    assert f"Curvature of the mean loss over the weights of {HEAD} (nats" in found.explain()


@pytest.mark.parametrize(
    ("component", "changed", "words"),
    [("layer9", {}, "got layer=9"), (HEAD, {"parameters": ["*dense*"]}, "set sgld.parameters to null")],
)
def test_a_calibration_refuses_bad_components_before_the_first_step(tmp_path, component, changed, words):
    influence = InfluenceCallback(ProbeSchedule(at_steps=[4]), replace(AUTO, **changed), component=component)
    module = language_model()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(InputError, match=words):
        fit(tmp_path, module, [CalibrationRun(influence, CalibrationSettings())], max_steps=4)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "sgld", [AUTO, replace(AUTO, preconditioner=RMSprop(eps=0.1), num_burnin_steps=4)], ids=["plain", "rmsprop"]
)
def test_auto_is_resolved_from_the_curvature_of_the_component(tmp_path, sgld):
    class Settled(InfluenceCallback):
        """Callback that measures the expected settings at the weights of the first probe."""

        def on_train_batch_end(self, trainer, pl_module, *rest):
            if trainer.global_step == 2:
                self.ought = {
                    name: resolve(
                        sgld,
                        Landscape(
                            Target(lambda item, batch: causal_lm_loss(item.model, batch), BATCH, selection=masks),
                            num_samples=FINE_SAMPLES,
                        ),
                        pl_module,
                        growth=EARLY_GROWTH,
                    )[0].require_resolved()
                    for name, masks in (("head", component_masks(pl_module, HEAD)), ("all", None))
                }
            super().on_train_batch_end(trainer, pl_module, *rest)

    callback = Settled(SCHEDULE, sgld, ProbeConfig(draw_matrices=False), component=HEAD)
    fit(tmp_path, language_model(), [callback], max_steps=2)
    assert callback.sgld.require_resolved() == callback.ought["head"]
    assert callback.ought["head"] != callback.ought["all"]


def test_memory_of_lanczos_vectors_counts_only_moving_weights(tmp_path, caplog):
    """Six copies of all 1,408 weights take 34 kB, of a head's 140 they take 3.4 kB; two draws take less than either."""
    sgld = SGLDConfig(
        lr=1e-4,
        nbeta=10,
        localization=20,
        num_chains=1,
        num_draws=2,
        batch_size=4,
        num_burnin_steps=2,
        num_steps_bw_draws=1,
        drift="plain",
        engine="sequential",
    )
    observed = {"input_ids": rows()[:2]}
    probe = ProbeConfig(memory_limit_gib=12e3 / 2**30, draw_matrices=False, save_trace=False)

    def checked(name, component):
        caplog.clear()
        callback = InfluenceCallback(
            SCHEDULE, sgld, probe, observed=observed, sampling={"input_ids": rows()[:4]}, component=component
        )
        with caplog.at_level(logging.INFO):
            fit(tmp_path / name, language_model(), [callback], max_steps=2)
        return not any("were not checked against the curvature" in record.getMessage() for record in caplog.records)

    assert checked("head", HEAD)
    assert not checked("all", None)
