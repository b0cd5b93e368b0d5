import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from stagewise import InfluenceCallback, InputError, ProbeConfig, ProbeSchedule, open_run
from stagewise.callbacks.trainer_facts import learning_rate
from stagewise.loading.loader import ResumableLoader
from tests.callbacks.runs import EVERY_2, SGLD, Regression, fit, regression_data


class Told(torch.optim.SGD):
    """Optimizer that records the rate of each step: (weights that it moves x their rates) / all weights."""

    def __init__(self, *args, all_weights=4, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates, self.all_weights = [], all_weights

    def step(self, closure=None):
        loss = closure() if closure else None
        moved = [group["lr"] * sum(param.numel() for param in group["params"]) for group in self.param_groups]
        self.rates.append(sum(moved) / self.all_weights)
        super().step()
        return loss


class WarmedUp(Regression):
    """Module whose rate rises linearly, step by step: .01, .02, ..."""

    def configure_optimizers(self):
        self.told = Told(self.parameters(), lr=0.01)
        schedule = LambdaLR(self.told, lambda step: step + 1)
        return {"optimizer": self.told, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class InItsStep(Regression):
    """Module that sets the rate just before the step, as often in a warm-up without a scheduler."""

    def configure_optimizers(self):
        self.told = Told(self.parameters(), lr=0.5)
        return self.told

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        for group in self.told.param_groups:
            group["lr"] = 0.01 * (1 + self.trainer.global_step)
        optimizer.step(closure=optimizer_closure)


class TwoRates(Regression):
    """Module with different rates for weight and bias."""

    def configure_optimizers(self):
        self.told = Told([{"params": [self.layer.weight], "lr": 0.02}, {"params": [self.layer.bias], "lr": 0.1}])
        return self.told


class InTurn(Regression):
    """Manual optimization: two optimizers, one for the weight, one for the bias, with rates that rise."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.rates = []

    def configure_optimizers(self):
        return [Told([self.layer.weight], lr=0.02), Told([self.layer.bias], lr=0.04)]

    def training_step(self, batch, batch_idx):
        for number, optimizer in enumerate(self.optimizers()):
            optimizer.zero_grad()
            self.manual_backward(self.per_sample_loss(batch).mean())
            optimizer.step()
            self.rates.append(optimizer.rates[-1])
            optimizer.param_groups[0]["lr"] *= 1.5 - number / 4

    @property
    def told(self):
        return self


def intervals(run):
    """Returns TracIn's growth over each interval, in units of the gradient dot product at its end."""
    tracin, dot = run["tracin"].values.ravel(), run["graddot"].values.ravel()
    return np.diff(tracin, prepend=0.0) / dot


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        (WarmedUp, {}),
        (WarmedUp, {"accumulate_grad_batches": 2}),
        (WarmedUp, {"gradient_clip_val": 0.1}),
        (InItsStep, {}),
        (TwoRates, {}),
        (InTurn, {}),
    ],
)
def test_tracin_weights_an_interval_by_the_rates_of_its_steps(tmp_path, module, settings):
    module = module()
    callback = InfluenceCallback(ProbeSchedule(every_n_steps=4), SGLD)
    trainer = fit(tmp_path, module, regression_data(), callback, max_steps=12, **settings)
    rates = np.array(module.told.rates)
    assert len(rates) == 12
    run = open_run(trainer.log_dir)
    assert run["step"].values.tolist() == [4, 8, 12]
    np.testing.assert_allclose(intervals(run), rates.reshape(3, 4).sum(axis=1), rtol=1e-5)


def test_the_first_interval_of_a_warm_up_is_the_sum_of_its_rates(tmp_path):
    module = WarmedUp()
    trainer = fit(tmp_path, module, regression_data(), InfluenceCallback(EVERY_2, SGLD), max_steps=4)
    np.testing.assert_allclose(intervals(open_run(trainer.log_dir)), [0.01 + 0.02, 0.03 + 0.04], rtol=1e-5)


def test_a_step_with_repeated_closure_calls_counts_once(tmp_path):
    class Quasi(Regression):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=5)

    trainer = fit(tmp_path, Quasi(), regression_data(), InfluenceCallback(EVERY_2, SGLD), max_steps=4)
    np.testing.assert_allclose(intervals(open_run(trainer.log_dir)), [0.2, 0.2], rtol=1e-4)


def run_to(folder, max_steps, checkpoint=None, **settings):
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[
            InfluenceCallback(EVERY_2, SGLD, ProbeConfig(**settings)),
            ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = ResumableLoader(regression_data(), 8, seed=3)
    trainer.fit(WarmedUp(), loader, ckpt_path=checkpoint, weights_only=True)
    return trainer


def test_a_resumed_run_has_the_tracin_of_an_uninterrupted_one(tmp_path):
    left = open_run(run_to(tmp_path / "whole", 7).log_dir)["tracin"]
    assert left["step"].values.tolist() == [2, 4, 6]
    for stop in (3, 4):
        resumed = run_to(tmp_path / f"from {stop}", 7, tmp_path / "whole" / f"step={stop}.ckpt")
        np.testing.assert_array_equal(open_run(resumed.log_dir)["tracin"].values, left.values)


def older(path):
    """Returns a checkpoint of a version that did not sum the rates."""
    found = torch.load(path, weights_only=True)
    state = found["callbacks"]["InfluenceCallback"]
    del state["rates"], state["baselines"]["lr_sum"]
    torch.save(found, path)
    return path


def test_a_checkpoint_without_rates_is_refused_if_tracin_needs_them(tmp_path):
    run_to(tmp_path / "half", 3)
    checkpoint = older(tmp_path / "half" / "step=3.ckpt")
    with pytest.raises(InputError, match="without the learning rates of its steps, which TracIn needs; expected"):
        run_to(tmp_path / "refused", 6, checkpoint)
    trainer = run_to(tmp_path / "without", 6, checkpoint, gradient_dot=False)
    assert open_run(trainer.log_dir)["step"].values.tolist() == [2, 4, 6]


def test_a_second_run_with_the_same_callback_restarts_the_sum(tmp_path):
    callback = InfluenceCallback(EVERY_2, SGLD)
    for name in ("first", "second"):
        module = WarmedUp()
        trainer = fit(tmp_path / name, module, regression_data(), callback, max_steps=4)
        np.testing.assert_allclose(intervals(open_run(trainer.log_dir)), [0.03, 0.07], rtol=1e-5)


def test_an_optimizer_without_a_rate_trains_without_tracin(tmp_path):
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})

        @torch.no_grad()
        def step(self, closure=None):
            with torch.enable_grad():
                closure()
            for group in self.param_groups:
                for param in group["params"]:
                    param -= 0.01 * param.grad

    class Rateless(Regression):
        def configure_optimizers(self):
            return Own(self.parameters())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = fit(tmp_path, Rateless(), regression_data(), InfluenceCallback(EVERY_2, SGLD), max_steps=4)
    run = open_run(trainer.log_dir)
    assert "graddot" in run
    assert "tracin" not in run


def test_weights_in_two_optimizers_count_once():
    class Facts:
        pass

    layer = nn.Linear(3, 1)
    first = torch.optim.SGD(layer.parameters(), lr=0.1)
    second = torch.optim.SGD([layer.weight], lr=0.4)
    trainer = Facts()
    trainer.optimizers = [first, second]
    assert learning_rate(trainer, first) == pytest.approx(0.1)
    assert learning_rate(trainer, second) == pytest.approx(0.4 * 3 / 4)
