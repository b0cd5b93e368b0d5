"""Runs whose training is the same on any number of ranks: ``python -m tests.integration.sharing_ranks FOLDER RUN ...``
makes some on two, or on ``RANKS`` of the environment."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, LLCConfig, ProbeConfig, ProbeSchedule, SampleMatrices
from stagewise.callbacks import influence as influence_callback
from stagewise.callbacks import session
from tests.callbacks.runs import SGLD, X, regression_data

QUICK = ProbeConfig(draw_matrices=False, check_curvature=False)
FULL = replace(
    QUICK,
    save_trace=True,
    sample_matrices=SampleMatrices.all,
    control_every=2,
    damped_influence=True,
    token_samples=[1, 4],
    position_bins=2,
    llc=LLCConfig(num_chains=3, num_draws=4),
)
GROUPS = {"low": torch.arange(12) < 6, "odd": torch.arange(12) % 2 == 1}
Y = torch.stack([X.sum(1), X[:, 0] * X[:, 1], X[:, 2].sin()], dim=1)


class Fixed(pl.LightningModule):
    """Trains on the same batch at each step, on each rank: the mean gradient over ranks is that of one, to the bit."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)

    def per_sample_loss(self, batch):
        return (self.second(self.first(batch[0]).tanh()) - batch[1]).square()

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss((X[:16], Y[:16])).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loss(module, batch):
    return module.per_sample_loss(batch)


class Turning:
    """Not finite for a sample from step 4 on, and short of memory or failing once on one rank."""

    def __init__(self, rank=None, error=None, turns=False):
        self.rank, self.error, self.turns = rank, error, turns

    def __call__(self, module, batch):
        if self.error is not None and module.global_rank == self.rank and module.global_step == 4:
            error, self.error = self.error, None
            if isinstance(error, SystemError):
                os.kill(os.getpid(), signal.SIGKILL)
            raise error
        losses = module.per_sample_loss(batch)
        bad = (batch[0] == X[3]).all(dim=1)[:, None] & (self.turns and module.global_step >= 4)
        return torch.where(bad, torch.nan, losses)


class Weights(pl.Callback):
    """Weights of this rank after each step."""

    def __init__(self, nudged=None):
        self.nudged, self.states = nudged, []

    def on_train_start(self, trainer, module):
        if trainer.global_rank == self.nudged:
            module.first.weight.data += 0.25

    def on_train_batch_end(self, trainer, module, *args):
        self.states.append([value.detach().clone() for value in module.parameters()])


def settings(name, rank):
    """Of one run: what is not as in the others."""
    short = torch.OutOfMemoryError("out of memory, on purpose")
    return {
        "full": {"probe": FULL},
        "plain": {},
        "without": {"enabled": False},
        "resumed": {"probe": FULL, "ckpt": "full"},
        "idle": {"sgld": replace(SGLD, num_chains=1)},
        "auto": {"sgld": replace(SGLD, lr="auto", localization="auto", drift="auto")},
        "fast": {"sgld": replace(SGLD, engine="auto")},
        "lost": {"loss_fn": Turning(turns=True)},
        "short": {"loss_fn": Turning(1, short)},
        "failing": {"loss_fn": Turning(1, KeyError("on this rank alone"))},
        "unmeasured": {"assemble": 0},
        "other_data": {"observed": (X[:12] + rank, Y[:12])},
        "other_weights": {"nudged": 1},
        "other_groups": {"groups": None, "found_groups": {"all_but_one": torch.arange(12) != 1} if rank else GROUPS},
        "ends": {"loss_fn": Turning(1, KeyError("on this rank alone")), "on_error": "raise"},
        "killed": {"loss_fn": Turning(1, SystemError("signal"))},
        "interrupted": {"loss_fn": Turning(1, KeyboardInterrupt())},
    }[name]


def run(name, folder, *, ranks, ckpt=None):
    """One run of eight steps, with a probe at every second one; returns its callback and the weights of this rank."""
    rank = int(os.environ.get("LOCAL_RANK", 0))
    given = settings(name, rank)
    given.pop("ckpt", None)
    weights, fails = Weights(given.pop("nudged", None)), given.pop("assemble", None)
    found, finds_groups = given.pop("found_groups", None), influence_callback.default_groups
    if found is not None:
        influence_callback.default_groups = lambda *given: found
    influence = InfluenceCallback(
        ProbeSchedule(every_n_steps=2),
        given.pop("sgld", SGLD),
        given.pop("probe", QUICK),
        **{"observed": (X[:12], Y[:12]), "sampling": (X[12:], Y[12:]), "groups": GROUPS, "loss_fn": loss} | given,
    )
    heard = []
    influence.subscribe(lambda step, probe: heard.append((step, None if probe is None else sorted(probe.data_vars))))
    if fails is not None:
        told = session.told_to_all

        def failing(outcome, carried, them):
            if outcome.trace.step == 4 and them.share.rank == fails:
                raise KeyError("once all draws are there")
            return told(outcome, carried, them)

        session.told_to_all = failing
    pl.seed_everything(1, verbose=False)
    checkpoints = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=3, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=8,
        callbacks=[weights, influence, checkpoints],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(Fixed(), DataLoader(regression_data(), 4), ckpt_path=ckpt, weights_only=True)
    finally:
        influence_callback.default_groups = finds_groups
        if fails is not None:
            session.told_to_all = told
        folder.mkdir(exist_ok=True, parents=True)
        state = influence.state_dict() if influence.enabled else {}
        torch.save(
            {
                "weights": weights.states,
                "heard": heard,
                "metrics": {tag: float(value) for tag, value in trainer.callback_metrics.items()},
                "state": state,
            },
            folder / f"rank{trainer.global_rank}.pt",
        )
    return influence


def main(base, *names):
    torch.set_num_threads(1)
    for name in names:
        ckpt = settings(name, 0).get("ckpt")
        found = ckpt and next((base / "one" / ckpt / "checkpoints").glob("*step=3.ckpt"))
        run(name, base / "ranks" / name, ranks=int(os.environ.get("RANKS", "2")), ckpt=found)


if __name__ == "__main__":
    from tests.integration import sharing_ranks  # its loss has the name that it has in other processes

    sharing_ranks.main(Path(sys.argv[1]), *sys.argv[2:])
