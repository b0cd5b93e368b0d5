"""Modules of random parts train bit for bit as if nobody looked, or are refused by name before the first step."""

import random
from collections import deque

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from stagewise import InfluenceCallback, InputError, LLCConfig, ProbeConfig, ProbeSchedule, SGLDConfig
from tests.integration.module_parts import PARTS, REFUSED, SIZE, Memory, Slotted
from tests.quiet_trainer import quiet_trainer

pytestmark = pytest.mark.whole_probes(draw_matrices=False)

ENGINES = ("sequential", "auto", "batched")


class Net(pl.LightningModule):
    def __init__(self, parts):
        super().__init__()
        self.net = nn.Sequential(*parts, nn.Linear(SIZE, 3))
        self.metric = MeanMetric()
        self.history = []
        self.any_sparse = any(getattr(module, "sparse", False) for module in self.modules())

    def per_sample_loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1], reduction="none")

    def training_step(self, batch, batch_idx):
        loss = self.per_sample_loss(batch).mean()
        self.metric(loss.detach())
        self.log("loss", loss)
        self.history.append((batch[0].sum().item(), loss.item(), torch.rand(()).item(), random.random()))
        return loss

    def configure_optimizers(self):
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        return torch.optim.SGD(trained, lr=0.1) if self.any_sparse else torch.optim.Adam(trained, lr=0.05)


def portrait(value, seen=None):
    """What an object holds, as plain values; where the same object comes again, its number."""
    seen = {} if seen is None else seen
    if isinstance(value, bool | int | float | str | type(None)):
        return value
    if id(value) in seen:
        return ("again", seen[id(value)][0])
    seen[id(value)] = (len(seen), value)
    if isinstance(value, torch.Tensor):
        dense = value.detach().to_dense() if value.is_sparse else value.detach()
        leaf = value.is_leaf
        return (
            str(dense.dtype),
            dense.tolist(),
            leaf,
            value.requires_grad,
            portrait(value.grad, seen) if leaf else None,
        )
    if isinstance(value, dict):
        # Handles of hooks are numbered over a whole process.
        keys = range(len(value)) if all(type(key) is int for key in value) else value
        return [(portrait(key, seen), portrait(held, seen)) for key, held in zip(keys, value.values(), strict=True)]
    if isinstance(value, set):
        return sorted(str(portrait(held, {})) for held in value)
    if isinstance(value, list | tuple | deque):
        return [portrait(held, seen) for held in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.RandomState):
        return str(value.get_state())
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, Slotted):
        return [portrait(value.number, seen), portrait(value.inner, seen)]
    if hasattr(value, "_orig_mod"):
        return portrait(value._orig_mod, seen)
    if isinstance(value, nn.Module | Memory):
        skipped = ("_trainer", "_compiled_call_impl", "_fabric", "forward")
        return [(name, portrait(held, seen)) for name, held in vars(value).items() if name not in skipped]
    if callable(value) and getattr(value, "__closure__", None):
        return [portrait(cell.cell_contents, seen) for cell in value.__closure__]
    return type(value).__name__


def fit(folder, names, callbacks, max_steps=4):
    pl.seed_everything(7, verbose=False)
    module = Net([(PARTS | {name: build for name, (build, _) in REFUSED.items()})[name]() for name in names])
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(24, SIZE, generator=generator), torch.randint(0, 3, (24,), generator=generator))
    trainer = quiet_trainer(
        max_steps=max_steps, max_epochs=-1, callbacks=callbacks, default_root_dir=folder, logger=False
    )
    try:
        trainer.fit(module, DataLoader(data, 6, shuffle=True))
    finally:
        module.outcome = (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()))
        module.optimizer = trainer.optimizers[0].state_dict() if trainer.optimizers else None
    return module


def watcher(engine, **probe):
    sgld = SGLDConfig(
        lr=1e-3,
        nbeta=10,
        localization=20,
        num_chains=2,
        num_draws=2,
        batch_size=6,
        engine=engine,
        num_burnin_steps=1,
        num_steps_bw_draws=1,
        drift="plain",
    )
    few = {"check_curvature": False, "gradient_dot": False, "llc": LLCConfig(enabled=False)}
    config = ProbeConfig(**(few | probe))
    return InfluenceCallback(ProbeSchedule(at_steps=[0, 2, 3]), sgld, config)


def hold_together(folder, names, engine, **probe):
    alone = fit(folder / "alone", names, [])
    try:
        watched = fit(folder / "watched", names, [watcher(engine, **probe)])
    except InputError as refusal:
        # What torch.func cannot follow has an engine of its own.
        if engine != "batched" or "set engine to sequential" not in str(refusal):
            raise
        return
    assert len(alone.history) == 4
    assert watched.history == alone.history
    assert first_difference(portrait(watched), portrait(alone)) is None


def first_difference(left, right, way=()):
    """Where two portraits differ."""
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            found = first_difference(a, b, (*way, left[0] if isinstance(left[0], str) and number else number))
            if found is not None:
                return found
        return None
    # A number is itself, not-a-number too.
    return None if left == right or (left != left and right != right) else (way, left, right)


# Tracing takes most of the time of a run with `auto`: every third part has it among the quick tests.
BY_ENGINE = [
    *((name, "auto" if number % 3 == 0 else "sequential") for number, name in enumerate(PARTS)),
    *(pytest.param(name, "auto", marks=pytest.mark.slow) for number, name in enumerate(PARTS) if number % 3),
]


@pytest.mark.parametrize(("name", "engine"), BY_ENGINE)
@pytest.mark.filterwarnings("ignore")
def test_each_part_trains_as_if_nobody_looked(tmp_path, name, engine):
    hold_together(tmp_path, [name], engine)


@pytest.mark.parametrize("name", ["sparse", "sparse with a largest norm", "two names"])
@pytest.mark.filterwarnings("ignore")
def test_so_do_all_baselines_of_it(tmp_path, name):
    hold_together(tmp_path, [name], "sequential", gradient_dot=True, llc=LLCConfig(enabled=True), check_curvature=True)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_put_back_is_refused_by_name_before_the_first_step(tmp_path, name, engine):
    seen = []

    class Steps(pl.Callback):
        def on_train_batch_start(self, *args):
            seen.append(args)

    with pytest.raises(InputError) as refusal:
        fit(tmp_path, [name], [watcher(engine), Steps()])
    assert f"'net.{REFUSED[name][1]}'" in str(refusal.value)
    assert not seen


several = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4)


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=several, engine=st.sampled_from(ENGINES))
@pytest.mark.filterwarnings("ignore")
def test_modules_of_random_parts_train_as_if_nobody_looked(tmp_path_factory, names, engine):
    hold_together(tmp_path_factory.mktemp("run"), names, engine)


@pytest.mark.slow
@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=several, engine=st.sampled_from(ENGINES), dot=st.booleans(), llc=st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_many_modules_of_random_parts_and_all_that_a_probe_measures(tmp_path_factory, names, engine, dot, llc):
    folder = tmp_path_factory.mktemp("run")
    hold_together(folder, names, engine, gradient_dot=dot, llc=LLCConfig(enabled=llc))
