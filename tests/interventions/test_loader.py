import json
from itertools import islice, product

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from stagewise.errors import InputError
from stagewise.interventions.loader import ReweightedLoader, check_shard
from stagewise.interventions.loss_reweighting import loss_weights, weighted_loss
from stagewise.interventions.policy import ConstantFactor
from stagewise.interventions.span import Span
from stagewise.interventions.weight_plan import Plan
from stagewise.loading.loader import ResumableLoader
from stagewise.losses.contract import Losses

NUM = 320
IN_A = np.random.default_rng(1).random(NUM) < 0.3


class Rows(Dataset):
    """Answers a whole batch at once."""

    def __len__(self):
        return NUM

    def __getitems__(self, indices):
        return torch.tensor(indices)


def _loader(**settings):
    return ReweightedLoader(Rows(), {"a": IN_A}, 8, seed=3, when_exhausted="repeat", **settings)


def _seen(loader, limit=None):
    return [batch.tolist() for batch in islice(loader, limit)]


def test_without_weights_it_is_the_resumable_loader():
    loader, plain = _loader(), ResumableLoader(Rows(), 8, seed=3)
    assert [_seen(loader), _seen(loader)] == [_seen(plain), _seen(plain)]


def test_a_fixed_plan_acts_at_its_steps_over_epochs():
    plan = Plan.from_spans(["a"], [Span(35, 55)], ConstantFactor({"a": 6.0}))
    loader, plain = _loader(weights_for=plan.by_batch()), ResumableLoader(Rows(), 8, seed=3)
    assert len(loader) == 40
    differ = [new != old for _ in range(2) for new, old in zip(_seen(loader), _seen(plain), strict=True)]
    assert not any(differ[:35])
    assert sum(differ[35:55]) > 15
    assert loader.history == [(35, {"a": 6.0}), (55, {"a": 1.0})]
    assert loader.served == 80
    share = IN_A.mean()
    found = loader.budget()
    assert found.groups["a"] == pytest.approx(20 * (6 / (1 + 5 * share) - 1))
    assert found.steps == 20


@pytest.mark.parametrize(("num_workers", "prefetch_factor", "lag"), [(0, None, 0), (1, 3, 3), (2, None, 4)])
def test_a_live_change_is_late_by_the_prefetch_lag(num_workers, prefetch_factor, lag):
    plan = Plan(["a"])
    loader = _loader(num_workers=num_workers, prefetch_factor=prefetch_factor)
    loader.weights_for = plan.by_batch()
    assert loader.prefetch_lag == lag
    for step, _ in enumerate(islice(loader, 20), start=1):
        if step == 6:
            plan.open(step, {"a": 5.0})
    assert loader.history == [(6 + lag, {"a": 5.0})]
    assert [loader.weights_of(6 + lag - 1), loader.weights_of(6 + lag)] == [{"a": 1.0}, {"a": 5.0}]


class Training:
    """A small run with a detector that opens a window at step 6 and closes it at step 17, of 13 batches an epoch."""

    def __init__(self, mechanism, *, live, num_workers):
        torch.manual_seed(0)
        self.mechanism, self.live = mechanism, live
        self.policy = ConstantFactor({"a": 5.0})
        self.plan = Plan(["a"]) if live else Plan.from_spans(["a"], [Span(6, 17)], self.policy)
        sampling = mechanism == "sampling"
        self.loader = _loader(weights_for=self.plan.by_batch() if sampling else None, num_workers=num_workers)
        self.inputs, self.in_a = torch.rand(NUM, 5), torch.from_numpy(IN_A)
        self.module = nn.Linear(5, 1)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=0.05)
        self.step, self.seen, self.losses = 0, [], []

    def run(self, until, batches_per_epoch=13):
        while self.step < until:
            left = batches_per_epoch - self.step % batches_per_epoch
            for batch in islice(self.loader, min(left, until - self.step)):
                self.train_on(batch)

    def train_on(self, batch):
        values = (self.module(self.inputs[batch]).squeeze(1) - self.inputs[batch].prod(dim=1)).square()
        losses = Losses(values, torch.ones(len(batch), dtype=torch.bool))
        loss = losses.mean()
        if self.mechanism == "loss":
            weights = self.plan.weights_at(self.step)
            loss = weighted_loss(losses, loss_weights(losses, {"a": self.in_a[batch]}, weights))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        self.seen.append(batch.tolist())
        self.losses.append(loss.item())
        if self.live and self.step == 6:
            self.plan.open(6, self.policy.weights)
        if self.live and self.step == 17:
            self.plan.close(17)

    def state(self):
        plain = json.dumps([self.step, self.loader.state_dict(), self.plan.state_dict()])
        return plain, {k: v.clone() for k, v in self.module.state_dict().items()}, _copy(self.optimizer.state_dict())

    def load(self, state):
        plain, weights, optimizer = state
        self.step, loader, plan = json.loads(plain)
        self.loader.load_state_dict(loader)
        self.plan.load_state_dict(plan)
        self.module.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)


def _copy(tree):
    if isinstance(tree, torch.Tensor):
        return tree.clone()
    return {key: _copy(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def stopped():
    """Every combination; of those that start processes for the data, one is quick."""
    for mechanism, live in product(("sampling", "loss"), (False, True)):
        quick = mechanism == "sampling" and live
        yield mechanism, live, 0
        yield pytest.param(mechanism, live, 2, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("mechanism", "live", "num_workers"), [*stopped()])
def test_a_run_stopped_in_an_open_window_equals_one_that_never_stopped(mechanism, live, num_workers):
    """Stopped just after the window opens, deep inside it, at an epoch's end and after it; all but one in mid-epoch."""
    whole = Training(mechanism, live=live, num_workers=num_workers)
    plain = Training("none", live=live, num_workers=0)
    states = {}
    train_on = whole.train_on

    def saving(batch):
        train_on(batch)
        if whole.step in (7, 11, 20):
            states[whole.step] = whole.state()

    whole.train_on = saving
    whole.run(26)
    plain.run(26)
    assert whole.losses[6:] != plain.losses[6:]  # the window acts
    for stop in states:
        resumed = Training(mechanism, live=live, num_workers=num_workers)
        resumed.load(states[stop])
        resumed.run(26)
        assert resumed.seen == whole.seen[stop:]
        assert resumed.losses == whole.losses[stop:]
        for left, right in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
            assert torch.equal(left, right)
        assert resumed.loader.history == whole.loader.history
        assert resumed.plan.state_dict() == whole.plan.state_dict()


class Net(pl.LightningModule):
    def __init__(self, plan):
        super().__init__()
        self.layer, self.plan, self.seen = nn.Linear(1, 1), plan, []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.tolist())
        return self.layer(batch[:, None] / NUM).square().mean()

    def on_train_batch_end(self, *_):
        if self.trainer.global_step == 6:
            self.plan.open(6, {"a": 5.0})

    def on_save_checkpoint(self, checkpoint):
        checkpoint["plan"] = self.plan.state_dict()

    def on_load_checkpoint(self, checkpoint):
        self.plan.load_state_dict(checkpoint["plan"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def _fit(folder, max_steps, checkpoint=None, limit=None):
    torch.manual_seed(0)
    plan = Plan(["a"])
    net = Net(plan)
    loader = _loader(weights_for=plan.by_batch())
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        limit_train_batches=limit,
        logger=False,
        callbacks=[ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, loader, ckpt_path=checkpoint, weights_only=True)
    return net, loader


@pytest.mark.parametrize(("limit", "step"), [(None, 9), (13, 9), (13, 13), (13, 15)])
def test_lightning_resumes_it_inside_an_open_window(tmp_path, limit, step):
    whole, loader = _fit(tmp_path / "whole", 20, limit=limit)
    assert loader.history == [(6, {"a": 5.0})]
    resumed, again = _fit(tmp_path / "resumed", 20, tmp_path / "whole" / f"step={step}.ckpt", limit=limit)
    assert resumed.seen == whole.seen[step:]
    assert again.history == loader.history
    assert again.served == loader.served == 20
    for left, right in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    _seen(_loader(weights_for=lambda _: {"a": 3.0}))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_groups_that_do_not_fit_and_other_states_are_refused():
    with pytest.raises(InputError, match="groups over 320 samples and a data set of 6"):
        ReweightedLoader(TensorDataset(torch.zeros(6)), {"a": IN_A}, 2)
    with pytest.raises(InputError, match="a loader without weights"):
        _loader().load_state_dict(ResumableLoader(Rows(), 8, seed=3).state_dict())
    other = ReweightedLoader(Rows(), {"a": IN_A}, 8, seed=4, when_exhausted="repeat")
    with pytest.raises(InputError, match="set the data's seed to 4"):
        _loader().load_state_dict(other.state_dict())


def test_wrong_sharding_is_refused_before_training():
    loader = _loader(rank=1, world_size=2)
    check_shard(loader, rank=1, world_size=2, use_distributed_sampler=False)
    check_shard(_loader(), rank=0, world_size=1, use_distributed_sampler=True)
    with pytest.raises(InputError, match="use_distributed_sampler=True with 2 processes; expected False"):
        check_shard(loader, rank=1, world_size=2, use_distributed_sampler=True)
    with pytest.raises(InputError, match="a loader for rank 1 of 2 in process 0 of 2"):
        check_shard(loader, rank=0, world_size=2, use_distributed_sampler=False)
