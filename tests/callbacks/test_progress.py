"""The training bar tells that a probe is running, and how long probes have taken."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, ProbeSchedule
from tests.callbacks.runs import SGLD, Regression, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")


def description_of(bar):
    if isinstance(bar, TQDMProgressBar):
        return bar.train_progress_bar.desc
    return next(task.description for task in bar.progress.tasks if task.id == bar.train_progress_bar_id)


@pytest.mark.parametrize("make_bar", [TQDMProgressBar, RichProgressBar])
def test_bar_shows_the_running_probe_and_the_time_of_all(tmp_path, make_bar):
    if make_bar is RichProgressBar:
        pytest.importorskip("rich")
    bar = make_bar()
    seen = []

    def loss_fn(module, batch):
        if module.global_step == 4:
            seen.append(description_of(bar))
        return module.per_sample_loss(batch)

    class Witness(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == 5:
                seen.append(description_of(bar))

    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=6,
        callbacks=[bar, InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD, loss_fn=loss_fn), Witness()],
        default_root_dir=tmp_path,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Regression(), DataLoader(regression_data(), 8))
    assert "probing step 4" in seen[0]
    assert "2 probes" in seen[-1]


def test_a_trainer_without_a_bar_is_fine(tmp_path):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        callbacks=[InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD)],
        default_root_dir=tmp_path,
        enable_progress_bar=False,
    )
    trainer.fit(Regression(), DataLoader(regression_data(), 8))
    assert torch.isfinite(trainer.callback_metrics["influence/within/all~all"])
