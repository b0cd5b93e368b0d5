"""A run on two ranks whose buffers differ, with a live window, and a probe that fails on one rank or on none:
``python -m tests.integration.two_failing_ranks FOLDER RANK``, -1 for none, -2 for a run without the callbacks."""

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn

from stagewise import ConstantFactor, DetectorConfig, InfluenceCallback, InterventionCallback, Live, ProbeSchedule
from tests.callbacks.interventions import EVEN, Numbered, loader
from tests.callbacks.runs import SGLD
from tests.integration.two_probing_ranks import Weights


class Normed(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 1)

    def per_sample_loss(self, batch):
        return F.mse_loss(self.layer(self.norm(batch[0])), batch[1], reduction="none").mean(dim=1)

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Losses:
    """Fails once on one rank, at the third probe."""

    def __init__(self, rank):
        self.rank, self.failed = rank, False

    def __call__(self, module, batch):
        if module.global_rank == self.rank and module.global_step == 2 and not self.failed:
            self.failed = True
            raise KeyError("on this rank alone")
        return module.per_sample_loss(batch)


class Buffers(pl.Callback):
    """Whether the ranks have buffers of their own when a probe looks, as running statistics are."""

    differ = False

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        means = trainer.strategy.all_gather(module.norm.running_mean)
        self.differ |= not torch.equal(means[0], means[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    pl.seed_everything(1, verbose=False)
    weights, buffers = Weights(folder), Buffers()
    observed, sampling = (tuple(tensor[:num] for tensor in Numbered().tensors) for num in (16, 64))
    influence = InfluenceCallback(
        ProbeSchedule(at_steps=[0, 1, 2, 3, 4, 6]),
        SGLD,
        observed=observed,
        sampling=sampling,
        groups={"even": EVEN[:16], "odd": ~EVEN[:16]},
        loss_fn=Losses(rank),
    )
    detector = DetectorConfig(min_plateau=3, num_probes=1, min_z=0.05, max_length=4)
    intervention = InterventionCallback(
        ConstantFactor({"even": 1.0}),  # opens and closes, and leaves the data as they are
        Live(detector, "group_loss/even", max_windows=1),
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=8,
        callbacks=[weights, buffers, *([] if rank == -2 else [influence, intervention])],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(Normed(), loader())
    changes = [] if rank == -2 else [(change.step, change.inside) for change in intervention.plan.changes]
    torch.save({"changes": changes, "differ": buffers.differ}, folder / f"facts{trainer.global_rank}.pt")
