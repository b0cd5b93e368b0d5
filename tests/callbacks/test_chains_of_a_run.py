"""Connections between a run and its chains: the optimizer's moments, the engine, the trace."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from stagewise import AdamMoments, InfluenceCallback, InputError, ProbeConfig, open_run
from stagewise.callbacks.trainer_facts import second_moments
from tests.callbacks.runs import EVERY_2, SGLD, Classifier, Labelled, Regression, fit, focal_loss, regression_data

MOMENTS = replace(SGLD, preconditioner=AdamMoments())


def test_chains_use_the_second_moments_of_the_training_optimizer(tmp_path):
    seen = []

    class Watching(Classifier):
        def on_train_batch_end(self, *_):
            (optimizer,) = self.trainer.optimizers
            state = optimizer.state[self.layer.weight]
            seen.append(state["exp_avg_sq"] / (1 - 0.999 ** int(state["step"])))

    module = Watching()
    callback = InfluenceCallback(EVERY_2, MOMENTS, loss_fn=focal_loss)
    trainer = fit(tmp_path, module, Labelled(), callback, max_steps=4)
    torch.testing.assert_close(second_moments(trainer, module)["layer.weight"], seen[-1])
    plain = InfluenceCallback(EVERY_2, SGLD, loss_fn=focal_loss, output_dir=str(tmp_path / "plain"))
    fit(tmp_path, Watching(), Labelled(), plain, max_steps=4)
    with_moments, without = (open_run(one.folder)["group_bif"].values for one in (callback, plain))
    assert not np.allclose(with_moments, without, rtol=0.05)


def test_optimizer_without_second_moments_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match="got preconditioner AdamMoments and the optimizer SGD; expected Adam"):
        fit(tmp_path, Regression(), regression_data(), InfluenceCallback(EVERY_2, MOMENTS))


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_the_engine_is_stored_in_the_checkpoint_and_with_every_probe(tmp_path, engine):
    callback = InfluenceCallback(EVERY_2, replace(SGLD, engine=engine))
    fit(tmp_path, Regression(), regression_data(), callback, max_steps=4)
    assert callback.state_dict()["engine"] == engine
    assert open_run(callback.folder).attrs["engine"] == engine


def test_influence_is_independent_of_storing_the_trace(tmp_path):
    def run(name, save_trace):
        callback = InfluenceCallback(
            EVERY_2,
            replace(SGLD, engine="sequential"),
            ProbeConfig(save_trace=save_trace),
            groups={"first": torch.arange(64) < 32, "second": torch.arange(64) >= 32},
            output_dir=str(tmp_path / name),
        )
        torch.manual_seed(0)
        fit(tmp_path, Regression(), regression_data(), callback, max_steps=4)
        return open_run(callback.folder)

    kept, reduced = run("kept", True), run("reduced", False)
    stored = [zipfile.ZipFile(next((tmp_path / name).rglob("step4.zip"))).namelist() for name in ("kept", "reduced")]
    assert ["loss/zarr.json" in names for names in stored] == [True, False]
    for name in ("group_bif", "bif_within", "group_bif_se", "rhat_max", "loss_rise"):
        np.testing.assert_allclose(kept[name], reduced[name], rtol=1e-5, atol=1e-9)
