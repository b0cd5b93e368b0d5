"""A live window over a run whose weights FSDP2 keeps in shards: ``python -m tests.integration.sharded_windows FOLDER``
makes it on two ranks; :func:`run` on one without shards, with the same noise and the same samples in each step."""

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from stagewise import DetectorConfig, InfluenceCallback, InterventionCallback, Live, ProbeSchedule
from tests.callbacks.interventions import EVEN, FOUR, Numbered, Witness, loader
from tests.callbacks.runs import SGLD
from tests.integration.sharded_ranks import same_noise

BATCH = 8
DETECTOR = DetectorConfig(min_plateau=3, num_probes=1, min_z=0.05, max_length=4)


class Net(pl.LightningModule):
    """Regression on its own batches."""

    def __init__(self, sharded):
        super().__init__()
        self.sharded = sharded
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))

    def configure_model(self):
        if self.sharded:
            for part in (self.net[0], self.net[2], self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def per_sample_loss(self, batch):
        return (self.net(batch[0]) - batch[1]).square().mean(dim=1)

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Batches(Witness):
    """Samples of this rank alone: its weights are shards."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        pass


def run(folder, *, ranks):
    """One run of ten steps whose third probe or a later one opens a window with weight 4."""
    batches = Batches()
    observed, sampling = (tuple(tensor[:num] for tensor in Numbered().tensors) for num in (16, 64))
    influence = InfluenceCallback(
        ProbeSchedule(every_n_steps=1),
        SGLD,
        observed=observed,
        sampling=sampling,
        groups={"even": EVEN[:16], "odd": ~EVEN[:16]},
    )
    intervention = InterventionCallback(FOUR, Live(DETECTOR, "group_loss/even", max_windows=1))
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1) if ranks > 1 else "auto",
        use_distributed_sampler=False,
        max_steps=10,
        callbacks=[influence, intervention, batches],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with same_noise(ranks):
        trainer.fit(Net(sharded=ranks > 1), loader(BATCH // ranks))
    changes = [(change.step, change.inside) for change in intervention.plan.changes]
    facts = {"batches": batches.batches, "changes": changes}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), ranks=2)
