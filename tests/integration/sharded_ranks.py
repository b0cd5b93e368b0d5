"""Runs whose weights FSDP2 keeps in shards: ``python -m tests.integration.sharded_ranks FOLDER RUN ...`` makes some on
two ranks; :func:`run` makes one without shards, with the same noise."""

import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from stagewise import AdamMoments, InfluenceCallback, ProbeSchedule
from stagewise.isolation.shards import local
from stagewise.sampling import chains
from stagewise.sampling.row_noise import RowStreams, Stretch
from tests.callbacks.runs import SGLD, X, regression_data
from tests.integration.sharing_ranks import FULL, GROUPS, QUICK, Y

FULL = replace(FULL, damped_influence=False)
ADAM = replace(SGLD, preconditioner=AdamMoments(), drift="tilted", parameters=["net.0.*", "net.2.weight"])


class Layer(nn.Linear):
    """Raises in its forward pass where it is told to."""

    error: BaseException | None = None

    def forward(self, x):
        if self.error is not None:
            error, self.error = self.error, None
            if isinstance(error, SystemError):
                os.kill(os.getpid(), signal.SIGKILL)
            raise error
        return super().forward(x)


class Net(pl.LightningModule):
    """Trains on the same batch on each rank: the mean gradient over ranks is that of one, to the bit."""

    def __init__(self, sharded):
        super().__init__()
        self.sharded = sharded
        # Five rows over two ranks: shards of unequal size.
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), Layer(5, 3))

    def configure_model(self):
        if self.sharded:
            mesh = self.device_mesh["data_parallel"]
            for part in (self.net[0], self.net[2], self.net):
                fully_shard(part, mesh=mesh)

    def per_sample_loss(self, batch):
        return (self.net(batch[0]) - batch[1]).square()

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss((X[:16], Y[:16])).mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Failing:
    """Fails once at step 4, on one rank: before the forward pass, within it, or after."""

    def __init__(self, where, error):
        self.where, self.error = where, error

    def __call__(self, module, batch):
        fails = module.global_rank == 1 and module.global_step == 4 and self.error is not None
        error = self.error
        if fails:
            self.error = None
            if self.where == "before":
                raise error
            if self.where == "within":
                module.net[2].error = error
        losses = module.per_sample_loss(batch)
        if fails:
            raise error
        return losses


class Weights(pl.Callback):
    """Weights of this rank after each step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, module, *args):
        self.states.append([local(value).detach().clone() for value in module.parameters()])


def loss(module, batch):
    return module.per_sample_loss(batch)


def settings(name):
    """Of one run: what is not as in the others."""
    return {
        "without": {"enabled": False},
        "full": {"probe": FULL},
        "resumed": {"probe": FULL},
        "adam": {"sgld": ADAM},
        "before": {"loss_fn": Failing("before", KeyError("on this rank alone"))},
        "within": {"loss_fn": Failing("within", KeyError("on this rank alone"))},
        "after": {"loss_fn": Failing("after", KeyError("on this rank alone"))},
        "interrupted": {"loss_fn": Failing("within", KeyboardInterrupt())},
        "killed": {"loss_fn": Failing("within", SystemError("signal"))},
    }[name]


def noise_by_rows():
    """Streams of a chain without shards, with the noise of one in shards."""
    layout = [Stretch(number, rows, width, 0, rows) for number, (rows, width) in enumerate([(5, 3), (5, 1), (3, 5)])]
    last = [Stretch(3, 3, 1, 0, 3)]

    def streams(config, numbers, step, like, size, choices):
        moved = layout + (last if len(like) == 38 else [])
        return RowStreams(config, numbers, step, like, size, choices, layout=moved)

    return streams


@contextmanager
def same_noise(ranks):
    """Chains of one rank have the noise of those in shards."""
    plain = chains.Streams
    if ranks == 1:
        chains.Streams = noise_by_rows()
    try:
        yield
    finally:
        chains.Streams = plain


def run(name, folder, *, ranks, ckpt=None):
    """One run of six steps, with a probe at every second one."""
    given = settings(name)
    weights = Weights()
    influence = InfluenceCallback(
        ProbeSchedule(every_n_steps=2),
        given.pop("sgld", SGLD),
        given.pop("probe", QUICK),
        **{"observed": (X[:12], Y[:12]), "sampling": (X[12:], Y[12:]), "groups": GROUPS, "loss_fn": loss} | given,
    )
    heard = []
    influence.subscribe(lambda step, probe: heard.append((step, probe is not None)))
    pl.seed_everything(1, verbose=False)
    strategy = partial(ModelParallelStrategy, data_parallel_size=ranks, tensor_parallel_size=1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=strategy() if ranks > 1 else "auto",
        max_steps=6,
        callbacks=[weights, influence, ModelCheckpoint(folder / "checkpoints", every_n_train_steps=3, save_top_k=-1)],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        with same_noise(ranks):
            trainer.fit(Net(sharded=ranks > 1), DataLoader(regression_data(), 4), ckpt_path=ckpt)
    finally:
        folder.mkdir(exist_ok=True, parents=True)
        torch.save({"weights": weights.states, "heard": heard}, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    from tests.integration import sharded_ranks  # its loss has the name that it has in other processes

    torch.set_num_threads(1)
    base = Path(sys.argv[1])
    for asked in sys.argv[2:]:
        begun = next((base / "full" / "checkpoints").glob("*step=3.ckpt")) if asked == "resumed" else None
        sharded_ranks.run(asked, base / asked, ranks=2, ckpt=begun)
