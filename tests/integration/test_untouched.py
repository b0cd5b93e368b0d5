"""Training is bit-identical with and without the callbacks."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stagewise import InfluenceCallback, ProbeSchedule
from tests.quiet_trainer import quiet_trainer
from tests.short_chains import SHORT

pytestmark = pytest.mark.whole_probes(draw_matrices=False)

SGLD = replace(SHORT, localization=20, num_chains=2, num_draws=4, batch_size=32)


class Net(pl.LightningModule):
    """Dropout, BatchNorm, a part that the user keeps in eval mode, and a record of every batch and loss."""

    def __init__(self, manual=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        self.frozen_norm = nn.BatchNorm1d(6)
        self.automatic_optimization = not manual
        self.history = []

    def on_train_start(self):
        self.frozen_norm.eval()

    def forward(self, x):
        return self.body(self.frozen_norm(x))

    def per_sample_loss(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1], reduction="none")

    def training_step(self, batch, batch_idx):
        loss = self.per_sample_loss(batch).mean()
        self.log("train/loss", loss, prog_bar=True)
        self.history.append((batch[0].sum().item(), loss.item(), torch.rand(()).item()))
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            return None
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def data():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(96, 6, generator=generator), torch.randint(0, 3, (96,), generator=generator))


def fit(folder, callbacks, manual=False, max_steps=10, **settings):
    pl.seed_everything(7, verbose=False)
    module = Net(manual)
    trainer = quiet_trainer(
        max_steps=max_steps,
        max_epochs=-1,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=True,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(module, DataLoader(data(), 8, shuffle=True))
    return module, trainer


def everything(module, trainer):
    optimizer = trainer.optimizers[0].state_dict()
    tensors = {name: value.clone() for name, value in module.state_dict().items()}
    for index, state in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    return tensors


MODES = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 5},
    "clipped": {"gradient_clip_val": 0.1},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "accumulated and clipped": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
    "manual": {"manual": True},
    "64-true": {"precision": "64-true"},
    "bf16-true": {"precision": "bf16-true"},
}

PARTS_OF_ANOTHER = ("accumulated", "clipped")
"""Modes that "accumulated and clipped" has both of."""


@pytest.mark.parametrize(
    "mode",
    [
        *(item for item in MODES if item not in PARTS_OF_ANOTHER),
        *(pytest.param(item, marks=pytest.mark.slow) for item in PARTS_OF_ANOTHER),
        pytest.param("plain", id="plain, with pictures", marks=[pytest.mark.whole_probes, pytest.mark.slow]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_training_is_bit_identical(tmp_path, mode):
    steps = [0, 2, 3, 7, 9] if mode == "plain" else [0, 3, 9]
    callback = InfluenceCallback(ProbeSchedule(at_steps=steps), SGLD)
    alone = fit(tmp_path / "alone", [], **MODES[mode])
    watched = fit(tmp_path / "watched", [callback], **MODES[mode])
    assert watched[0].history == alone[0].history
    assert len(alone[0].history) >= 10
    before, after = everything(*alone), everything(*watched)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert [child.training for child in alone[0].modules()] == [child.training for child in watched[0].modules()]
    assert torch.equal(*(torch.stack([p.grad.sum() for p in m.body.parameters()]) for m, _ in (alone, watched)))


@pytest.mark.filterwarnings("ignore")
def test_callback_metrics_gain_nothing_outside_the_callbacks_own_tags(tmp_path):
    """A name that a user may log too, such as loss/all, would change what other callbacks monitor."""
    alone = fit(tmp_path / "alone", [])[1].callback_metrics
    callback = InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD)
    watched = fit(tmp_path / "watched", [callback])[1].callback_metrics
    assert all(torch.equal(watched[name], value) for name, value in alone.items())
    added = set(watched) - set(alone)
    assert "influence/within/label 0~label 1" in added
    owned = ("influence/", "sampler/", "transition/", "baseline/", "llc/", "llc_se/")
    assert all(name.startswith(owned) for name in added)


class Boom(Exception):
    pass


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore")
def test_a_probe_that_fails_or_is_interrupted_leaves_the_module_as_it_was(tmp_path, error):
    seen = {}

    def loss_fn(module, batch):
        seen["calls"] = seen.get("calls", 0) + 1
        if seen["calls"] == 20:
            raise error
        return module.per_sample_loss(batch)

    class Witness(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == 4:
                seen["weights"] = {name: value.clone() for name, value in module.state_dict().items()}
                seen["flags"] = [child.training for child in module.modules()]
                seen["rng"] = torch.get_rng_state()

        def on_exception(self, trainer, module, exception):
            seen["after"] = {name: value.clone() for name, value in module.state_dict().items()}
            seen["flags_after"] = [child.training for child in module.modules()]
            seen["rng_after"] = torch.get_rng_state()

    callback = InfluenceCallback(ProbeSchedule(at_steps=[4]), SGLD, loss_fn=loss_fn, on_error="raise")
    with pytest.raises((error, SystemExit)):
        fit(tmp_path, [Witness(), callback])
    assert seen["flags"] == seen["flags_after"]
    assert torch.equal(seen["rng"], seen["rng_after"])
    for name, value in seen["weights"].items():
        assert torch.equal(value, seen["after"][name]), name
