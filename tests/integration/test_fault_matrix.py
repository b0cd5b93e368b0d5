"""However a run is set up, and whatever goes wrong in its probes: training is what it is without them, bit for bit."""

import errno
import json

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule, SGLDConfig
from stagewise.runs.open import open_run
from stagewise.runs.store import ProbeStore
from tests.quiet_trainer import quiet_trainer

pytestmark = pytest.mark.whole_probes(draw_matrices=False)

SGLD = {
    "lr": 1e-3,
    "nbeta": 10,
    "localization": 20,
    "num_chains": 2,
    "num_draws": 3,
    "batch_size": 8,
    "engine": "sequential",
    "num_burnin_steps": 1,
    "num_steps_bw_draws": 1,
    "drift": "plain",
}
PROBE = ProbeConfig(draw_matrices=False, check_curvature=False, gradient_dot=False)
STEPS, PROBED = 8, [0, 3, 6]
NUM_OBSERVED = 32


class Net(pl.LightningModule):
    def __init__(self, optimizers=1, manual=False, compiled=False):
        super().__init__()
        body = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, 3))
        self.body = torch.compile(body, backend="eager") if compiled else body
        self.other = nn.Linear(6, 3)
        self.num_optimizers, self.automatic_optimization = optimizers, not manual
        self.history = []

    def forward(self, x):
        return self.body(x) + self.other(x)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        self.history.append((batch[0].sum().item(), loss.item(), torch.rand(()).item()))
        if not self.automatic_optimization:
            for optimizer in [self.optimizers()] if self.num_optimizers == 1 else self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(loss, retain_graph=True)
            for optimizer in [self.optimizers()] if self.num_optimizers == 1 else self.optimizers():
                optimizer.step()
            return None
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("valid/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        if self.num_optimizers == 1:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [torch.optim.AdamW(self.body.parameters(), lr=1e-2), torch.optim.SGD(self.other.parameters(), lr=1e-1)]


def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(96, 6, generator=generator), torch.randint(0, 3, (96,), generator=generator)


OBSERVED = tuple(part[:NUM_OBSERVED] for part in rows())


class Stream(IterableDataset):
    def __iter__(self):
        return zip(*rows(), strict=True)


MODES = {
    "plain": {},
    "accumulation": {"accumulate_grad_batches": 2},
    "clipping": {"gradient_clip_val": 0.1},
    "bf16": {"precision": "bf16-mixed"},
    "manual": {"manual": True},
    "two optimizers": {"optimizers": 2, "manual": True},
    "EMA": {"callback": lambda: EMAWeightAveraging()},
    "SWA": {"callback": lambda: StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1)},
    "compiled": {"compiled": True},
    "IterableDataset": {"stream": True},
    "workers": {"num_workers": 1},
    "validation in mid-epoch": {"val_check_interval": 5},
}


class Trouble:
    """A loss that makes trouble from the second probe on; the start of the run and the first probe are left alone."""

    def __init__(self, outcome):
        self.outcome, self.armed, self.tried = outcome, False, []

    def __call__(self, module, batch):
        self.tried.append(len(batch[0]))
        if self.armed:
            if self.outcome == "raises":
                raise KeyError("no such column")
            if self.outcome == "interrupted":
                raise KeyboardInterrupt
            most = {"out of memory": 0, "short of memory": NUM_OBSERVED - 1}.get(self.outcome, NUM_OBSERVED)
            if len(batch[0]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


class Arming(pl.Callback):
    """Arms the trouble after the first step, and keeps the weights that a probe will see."""

    def __init__(self, trouble=None):
        self.trouble, self.seen, self.at_the_end = trouble, {}, {}

    def on_train_batch_end(self, trainer, module, *args):
        if self.trouble is not None:
            self.trouble.armed = True
        # The first batch of a step: with accumulation others follow before the next one.
        self.seen.setdefault(trainer.global_step, state(module, trainer))

    def on_exception(self, trainer, module, exception):
        self.at_the_end = state(module, trainer)


class BrokenLogger(CSVLogger):
    broken = False

    def log_metrics(self, metrics, step=None):
        if self.broken and step in PROBED[1:] and any(name.startswith("influence/") for name in metrics):
            raise ConnectionError("the server is gone")
        super().log_metrics(metrics, step)


def state(module, trainer):
    found = {f"module.{name}": value.detach().clone() for name, value in module.state_dict().items()}
    for number, optimizer in enumerate(trainer.optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            found |= {f"{number}.{index}.{name}": torch.as_tensor(value).clone() for name, value in values.items()}
    return found | {"rng": torch.get_rng_state()}


def equal(left, right):
    assert left.keys() == right.keys()
    return [name for name, value in left.items() if not torch.equal(value, right[name])]


def fit(folder, mode, callbacks, broken=False):
    settings = dict(MODES[mode])
    net = {name: settings.pop(name) for name in ("optimizers", "manual", "compiled") if name in settings}
    stream, workers = settings.pop("stream", False), settings.pop("num_workers", 0)
    extra = [settings.pop("callback")()] if "callback" in settings else []
    pl.seed_everything(7, verbose=False)
    module = Net(**net)
    logger = BrokenLogger(folder)
    logger.broken = broken
    per_batch = 2 if net.get("optimizers") == 2 else 1
    trainer = quiet_trainer(
        max_steps=STEPS * per_batch,
        max_epochs=3,
        callbacks=[*extra, *callbacks],
        logger=logger,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **settings,
    )
    data = DataLoader(Stream() if stream else TensorDataset(*rows()), 8, shuffle=not stream, num_workers=workers)
    valid = DataLoader(TensorDataset(*rows()), 48) if "val_check_interval" in settings else None
    try:
        trainer.fit(module, data, valid)
    except SystemExit:  # how Lightning ends a run that was interrupted
        assert callbacks[0].trouble.outcome == "interrupted"
    return module, trainer


_ALONE = {}


def alone(tmp_path_factory, mode):
    if mode not in _ALONE:
        witness = Arming()
        module, trainer = fit(tmp_path_factory.mktemp("alone"), mode, [witness])
        _ALONE[mode] = module.history, state(module, trainer), witness.seen
    return _ALONE[mode]


OUTCOMES = {
    "succeeds": {},
    "diverges": {"chains": 2},
    "raises": {"probe": 2},
    "short of memory": {},
    "out of memory": {"out_of_memory": 2},
    "disk full": {"disk": 2},
    "logger fails": {"disk": 2},  # a lost connection is an error of the system, as a full disk is
    "interrupted": None,
}
QUICK = {("plain", outcome) for outcome in OUTCOMES}


def cells():
    for mode in MODES:
        for outcome in OUTCOMES:
            marks = [] if (mode, outcome) in QUICK else [pytest.mark.slow]
            yield pytest.param(mode, outcome, marks=marks, id=f"{mode}-{outcome}")


@pytest.mark.parametrize(("mode", "outcome"), list(cells()))
@pytest.mark.filterwarnings("ignore")
def test_training_is_bit_identical_and_what_was_lost_is_counted(tmp_path, tmp_path_factory, monkeypatch, mode, outcome):
    history, after, seen = alone(tmp_path_factory, mode)
    trouble = Trouble(outcome)
    arming = Arming(trouble)
    sgld = SGLDConfig(**SGLD | ({"nbeta": 1e9} if outcome == "diverges" else {}))
    steps = [step * (2 if mode == "two optimizers" else 1) for step in PROBED]
    schedule = ProbeSchedule(at_steps=steps[1:] if outcome == "diverges" else steps)
    callback = InfluenceCallback(schedule, sgld, PROBE, observed=OBSERVED, sampling=OBSERVED, loss_fn=trouble)
    if outcome == "disk full":
        write = ProbeStore.write

        def full(store, probe):
            if probe.attrs["step"] > 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(store, probe)

        monkeypatch.setattr(ProbeStore, "write", full)
    monkeypatch.setattr("tests.integration.test_fault_matrix.PROBED", steps)
    module, trainer = fit(tmp_path, mode, [arming, callback], broken=outcome == "logger fails")

    if outcome == "interrupted":
        assert module.history == history[: len(module.history)]
        assert equal(arming.at_the_end, seen[steps[1]]) == []
        return
    assert module.history == history
    assert equal(state(module, trainer), after) == []
    assert all(equal(value, seen[step]) == [] for step, value in arming.seen.items())
    summary = json.loads((callback.folder / "summary.json").read_text())
    assert summary["probes_failed"] == OUTCOMES[outcome]
    kept = {"succeeds": steps, "short of memory": steps, "logger fails": steps}.get(outcome, steps[:1])
    if outcome != "diverges":
        assert open_run(callback.folder)["step"].values.tolist() == kept
    if outcome == "short of memory":
        assert trouble.tried[-1] <= NUM_OBSERVED // 2
