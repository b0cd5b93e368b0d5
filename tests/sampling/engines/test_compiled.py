"""Compiled engine compared with the sequential one, mostly with trivial compilers."""

import os
import random
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stagewise import InfluenceCallback, ProbeSchedule, SGLDConfig, open_run
from stagewise.errors import InputError
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.losses.collated import CollatedLoss
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.engines import compiled, select
from stagewise.sampling.preconditioners.diagonal import RMSprop
from stagewise.sampling.target import Target
from tests.lm_families import tiny_gpt2
from tests.quiet_trainer import quiet_trainer
from tests.sampling.small_net import Net, X, Y, squared

TOLERANCE = 1e-5
"""Of losses and distances after a dozen float32 steps: a few hundred units in the last place."""


class Compiler:
    """Compiler that compiles nothing and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, graph, inputs):
        self.calls += 1
        return graph.forward


def uses(monkeypatch, backend):
    monkeypatch.setattr(compiled, "BACKEND", backend)
    return backend


def sampler(module, engine="compiled", loss=squared, batch=(X, Y), sampling=None, chunk_size=None, masks=None, **more):
    settings = {"lr": 1e-3, "nbeta": 20, "localization": 20, "num_chains": 2, "num_draws": 5, "batch_size": 4}
    config = SGLDConfig(**{**settings, "num_burnin_steps": 2, "engine": engine, **more})
    return ChainSampler(module, Target(loss, batch, sampling, masks, chunk_size=chunk_size), config)


def assert_same_draws(left, right, tolerance=TOLERANCE):
    assert left.chains == right.chains
    np.testing.assert_allclose(left.loss, right.loss, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(left.distance, right.distance, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(left.gradient_rms, right.gradient_rms, rtol=1e-3)
    assert left.minibatch_noise == pytest.approx(right.minibatch_noise, rel=1e-3)
    assert left.loss.std(axis=1).max() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 12},
        {"chunk_size": 5, "drift": "control_variate", "batch_size": 5},
        {"drift": "tilted", "weight_decay": 0.1, "integrator": "euler", "start": "anchor"},
        {"drift": "plain", "num_steps_bw_draws": 2, "preconditioner": RMSprop(alpha=0.8, eps=0.05)},
        {"parameters": ["norm.*"], "num_chains": 1, "common_noise": False},
        {"masks": {"first.weight": torch.eye(4) > 0, "norm.bias": torch.ones(4, dtype=torch.bool)}},
        {"nbeta": 0},
    ],
)
def test_draws_equal_those_of_the_sequential_engine(monkeypatch, changes):
    uses(monkeypatch, "eager")
    module = Net()
    traces = [sampler(module, engine, **changes).run(3) for engine in ("sequential", "compiled")]
    assert [trace.engine for trace in traces] == ["sequential", "compiled"]
    if changes.get("nbeta") == 0:  # no gradients: nothing to be equal up to rounding
        np.testing.assert_array_equal(traces[0].distance, traces[1].distance)
        np.testing.assert_allclose(traces[0].loss, traces[1].loss, rtol=TOLERANCE)
    else:
        assert_same_draws(*traces)


@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("eager", torch.float32, 1e-4), ("aot_eager", torch.float64, 1e-6), ("aot_eager", torch.bfloat16, 0.05)],
)
def test_draws_of_a_language_model_in_each_precision(monkeypatch, backend, dtype, tolerance):
    """Records are float32."""
    uses(monkeypatch, backend)
    ids = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(1))
    module = tiny_gpt2().eval().to(dtype)
    found = [sampler(module, engine, causal_lm_loss, ids).run() for engine in ("sequential", "compiled")]
    np.testing.assert_allclose(found[0].loss, found[1].loss, rtol=tolerance, atol=tolerance)
    assert found[0].loss.std(axis=1).max() > 0


def test_a_subset_of_chains_equals_the_same_chains_of_a_whole_run_bit_for_bit(monkeypatch):
    uses(monkeypatch, "aot_eager")
    module = Net()
    whole, some = sampler(module, num_chains=4).run(), sampler(module, num_chains=4).run(numbers=[1, 3])
    np.testing.assert_array_equal(some.loss, whole.loss[[1, 3]])


def test_restarted_run_has_the_draws_of_an_uninterrupted_one(monkeypatch):
    uses(monkeypatch, "aot_eager")
    module = Net()

    def train():
        with torch.no_grad():
            module.first.weight.mul_(1.1)
            module.shift.add_(0.2)
            module.norm.running_mean.add_(0.1)

    went_on = sampler(module)
    went_on.run(1)
    train()
    one = went_on.run(2)
    two = sampler(module).run(2)
    np.testing.assert_array_equal(one.loss, two.loss)
    assert_same_draws(one, sampler(module, "sequential").run(2))


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_each_shape_is_compiled_once_for_all_probes(monkeypatch, chunk_size):
    """Twelve samples in chunks of five, five and two: the last runs uncompiled."""
    compiler = uses(monkeypatch, Compiler())
    module = Net()
    one = sampler(module, chunk_size=chunk_size, drift="control_variate")
    for step in range(12):
        one.run(step)
        with torch.no_grad():
            module.first.weight.mul_(1.01)
    assert compiler.calls == 2


def test_halved_chunks_are_recompiled(monkeypatch):
    compiler = uses(monkeypatch, Compiler())
    one = sampler(Net())
    one.run()
    one.rechunk(6)
    assert_same_draws(one.run(), sampler(one._module, "sequential").run())
    assert compiler.calls == 3


def everything(module):
    held = [
        *(value.detach().clone() for value in module.state_dict().values()),
        *(parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None),
        torch.get_rng_state(),
        torch.from_numpy(np.random.get_state()[1].astype(np.int64)),
    ]
    flags = [part.training for part in module.modules()]
    return held, (flags, random.getstate(), {name: id(value) for name, value in module.named_parameters()})


def fails(graph, inputs):
    raise RuntimeError("no compiler here")


def is_interrupted(graph, inputs):
    raise KeyboardInterrupt


def compiles_what_fails(graph, inputs):
    calls = []

    def run(*values):
        calls.append(1)
        torch.rand(3)
        random.random()
        if len(calls) > 4:
            raise RuntimeError("cannot run")
        return graph(*values)

    return run


@pytest.mark.parametrize(
    ("backend", "error"),
    [
        ("aot_eager", None),
        (fails, InputError),
        (is_interrupted, KeyboardInterrupt),
        (compiles_what_fails, RuntimeError),
    ],
)
def test_module_and_random_states_are_restored_even_after_an_exception(monkeypatch, backend, error):
    uses(monkeypatch, backend)
    module = Net()
    module.norm.eval()
    module.register_buffer("steps", torch.zeros(1))
    squared(module, (X, Y)).mean().backward()
    before = everything(module)
    if error is None:
        sampler(module).run()
    else:
        with pytest.raises(error):
            sampler(module).run()
    after = everything(module)
    assert all(map(torch.equal, before[0], after[0]))
    assert before[1] == after[1]


def test_compiler_failure_raises_an_error_with_advice(monkeypatch):
    uses(monkeypatch, fails)
    with pytest.raises(InputError, match=r"engine=compiled, .*no compiler here.*set engine to sequential"):
        sampler(Net()).run()


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2 if float(self.weight.sum()) > 0 else 1)


def test_untraceable_modules_are_refused_by_name(monkeypatch):
    compiler = uses(monkeypatch, Compiler())
    with pytest.raises(InputError, match=r"engine=compiled, which cannot run this module .*set engine to sequential"):
        sampler(Branching(4, 4)).run()
    with pytest.raises(InputError, match=r"engine='compiled' and a batch with lists.*set engine to sequential"):
        sampler(Net(), batch=(X, [str(row) for row in range(12)]))
    collated = CollatedLoss(TensorDataset(X, Y), squared)
    with pytest.raises(InputError, match="set engine to sequential"):
        sampler(Net(), loss=collated, batch=torch.arange(12)).run()
    assert compiler.calls == 0


def test_compiled_losses_or_gradients_that_are_wrong_are_refused(monkeypatch):
    def wrong(which):
        made = []

        def backend(graph, inputs):
            made.append(1)
            factor = 1.1 if len(made) == which else 1.0
            return lambda *values: [value * factor for value in graph.forward(*values)]

        return backend

    for which, words in ((1, "losses at the training weights differ"), (2, "gradient at the training weights differs")):
        uses(monkeypatch, wrong(which))
        with pytest.raises(InputError, match=words + r".*set engine to sequential"):
            sampler(Net()).run()
    uses(monkeypatch, wrong(3))
    assert sampler(Net()).run().engine == "compiled"


def test_module_with_hidden_state_is_recompiled_a_limited_number_of_times(monkeypatch):
    compiler = uses(monkeypatch, Compiler())
    monkeypatch.setattr(select, "_MOST_COMPILED", 3)
    module, scale = nn.Linear(4, 4), [1.0]

    def loss(module, batch):
        return squared(module, batch) * scale[0]

    one, other = sampler(module, loss=loss), sampler(module, "sequential", loss=loss)
    one.run()
    for _ in range(select._MOST_COMPILED - 1):
        scale[0] += 1.0
        assert_same_draws(one.run(), other.run())
    assert compiler.calls == 2 * select._MOST_COMPILED
    scale[0] += 1.0
    with pytest.raises(InputError, match=r"compiled 3 times.*set engine to sequential"):
        one.run()
    scale[0] -= 1.0
    assert_same_draws(one.run(), other.run())  # the last program still fits


def test_loss_without_moving_weights_does_not_overwrite_the_constant_gradient_of_the_graph(monkeypatch):
    uses(monkeypatch, "eager")
    module = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})

    def loss(module, batch):
        return squared(module["a"], batch)

    settings = {"loss": loss, "parameters": ["b.*"], "weight_decay": 0.3}
    traces = [sampler(module, engine, **settings).run() for engine in ("sequential", "batched", "compiled")]
    for other in traces[1:]:
        np.testing.assert_allclose(other.distance, traces[0].distance, rtol=1e-6)


class Compiled(nn.Module):
    """Module with one part compiled by a wrapper, and one in place."""

    def __init__(self, backend):
        super().__init__()
        self.first = torch.compile(nn.Linear(4, 4), backend=backend)
        self.second = nn.Linear(4, 4)
        self.second.compile(backend=backend)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def test_already_compiled_module_runs_and_stays_compiled(monkeypatch):
    """Its own compiler is called before and never again: dynamo's caches and settings are not touched."""
    ours = uses(monkeypatch, Compiler())
    theirs = Compiler()
    module = Compiled(theirs)
    settings = torch._dynamo.config.save_config()
    want = sampler(module, "sequential").run()
    module(X).sum().backward()
    before = theirs.calls, module.first.forward, module.second._compiled_call_impl
    found = sampler(module).run()
    module(X).sum().backward()
    assert_same_draws(found, want)
    assert before == (theirs.calls, module.first.forward, module.second._compiled_call_impl)
    assert torch._dynamo.config.save_config() == settings
    assert ours.calls == 2


def test_loss_that_is_a_compiled_function_is_refused_by_name(monkeypatch):
    uses(monkeypatch, "eager")
    with pytest.raises(InputError, match=r"engine=compiled, .*dynamo-optimized.*set engine to sequential"):
        sampler(Net(), loss=torch.compile(squared, backend="eager")).run()


def test_a_compiler_reset_between_probes_costs_only_a_recompilation(monkeypatch):
    compiler = uses(monkeypatch, Compiler())
    module = Net()
    one = sampler(module)
    first = one.run()
    torch._dynamo.reset()
    np.testing.assert_array_equal(one.run().loss, first.loss)
    assert compiler.calls == 4


def test_auto_never_compiles(monkeypatch):
    uses(monkeypatch, fails)
    assert sampler(Net(), "auto").run().engine in ("sequential", "batched")


class Trained(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def per_sample_loss(self, batch):
        return squared(self.layer, batch)

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trained(folder, callbacks):
    pl.seed_everything(1, verbose=False)
    module = Trained()
    trainer = quiet_trainer(max_steps=4, default_root_dir=folder, logger=False, callbacks=callbacks)
    trainer.fit(module, DataLoader(TensorDataset(X, Y), 4, shuffle=True))
    return [value.clone() for value in module.state_dict().values()]


@pytest.mark.parametrize("backend", ["aot_eager", fails])
def test_training_is_unchanged_bit_for_bit_whether_the_compiler_works_or_not(monkeypatch, tmp_path, backend):
    uses(monkeypatch, backend)
    settings = SGLDConfig(
        lr=1e-3, localization=300, nbeta=30, num_chains=2, num_draws=4, engine="compiled", batch_size=4
    )
    callback = InfluenceCallback(ProbeSchedule(at_steps=[2, 4]), settings, output_dir=str(tmp_path / "probes"))
    alone = trained(tmp_path, [])
    if backend is fails:
        with pytest.warns(UserWarning, match="set engine to sequential"):
            probed = trained(tmp_path, [callback])
    else:
        probed = trained(tmp_path, [callback])
        run = open_run(tmp_path / "probes")
        assert (run.attrs["engine"], run.sizes["step"]) == ("compiled", 2)
    assert all(map(torch.equal, alone, probed))


REAL = """
import sys
import torch
from tests.sampling.engines.test_compiled import *

torch.manual_seed(0)
module = Net()
try:
    found = sampler(module, chunk_size=5, drift="control_variate").run()
except InputError as error:
    print("refused", error)
    sys.exit()
assert_same_draws(found, sampler(module, "sequential", chunk_size=5, drift="control_variate").run())
ids = torch.randint(0, 11, (6, 5))
model = tiny_gpt2().eval()
found = sampler(model, loss=causal_lm_loss, batch=ids).run()
assert_same_draws(found, sampler(model, "sequential", causal_lm_loss, ids).run(), tolerance=1e-4)
print("compiled")
"""


def in_a_process(**variables):
    """With an empty cache of its own."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", REAL],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "TORCHINDUCTOR_COMPILE_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_compiled_code_draws_what_the_sequential_engine_draws(tmp_path):
    assert in_a_process(TORCHINDUCTOR_CACHE_DIR=str(tmp_path)).strip() == "compiled"


@pytest.mark.slow
def test_machine_without_a_c_compiler_is_refused_with_advice(tmp_path):
    said = in_a_process(TORCHINDUCTOR_CACHE_DIR=str(tmp_path), CXX=str(tmp_path / "none"), PATH=str(tmp_path))
    assert said.startswith("refused got engine=compiled")
    assert "C++ compiler" in said
    assert said.strip().endswith("set engine to sequential")
