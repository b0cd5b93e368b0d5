"""Contract of the engines: the same seeds give the same draws, up to float rounding."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from stagewise.errors import InputError
from stagewise.losses.contract import causal_lm_loss
from stagewise.sampling.chains import ChainSampler, run_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.engines import select
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.target import Target
from tests.sampling.small_net import Net, X, Y, squared


def sampler(module, engine, loss=squared, batch=(X, Y), chunk_size=None, **changes):
    settings = {"lr": 1e-3, "nbeta": 20, "localization": 20, "num_chains": 3, "num_draws": 5, "batch_size": 4}
    config = SGLDConfig(**{**settings, "num_burnin_steps": 2, "engine": engine, **changes})
    return ChainSampler(module, Target(loss, batch, chunk_size=chunk_size), config)


def assert_same_draws(left, right, tolerance=1e-5):
    assert left.chains == right.chains
    np.testing.assert_allclose(left.loss, right.loss, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(left.distance, right.distance, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(left.gradient_rms, right.gradient_rms, rtol=1e-3)
    assert left.loss.std(axis=1).max() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 12},
        {"batch_size": 40, "drift": "tilted"},
        {"drift": "tilted", "weight_decay": 0.1},
        {"drift": "control_variate", "num_burnin_steps": 3, "num_steps_bw_draws": 2},
        {"preconditioner": RMSprop(alpha=0.8, eps=0.05), "num_burnin_steps": 4},
        {"preconditioner": RMSprop(alpha=0.8, eps=0.05), "drift": "plain", "weight_decay": 0.2, "start": "anchor"},
        {"preconditioner": RMSprop(frozen=False, initial=1)},
        {"preconditioner": AdamMoments()},
        {"parameters": ["norm.*"], "nbeta": 0},
        {"common_noise": False, "seed": 7, "num_chains": 1},
    ],
)
def test_engines_give_the_same_draws(changes):
    module = Net()
    moments = {"first.weight": torch.rand(4, 4), "norm.bias": torch.rand(4)}
    traces = [sampler(module, engine, **changes).run(3, moments) for engine in ("sequential", "batched")]
    assert [trace.engine for trace in traces] == ["sequential", "batched"]
    assert_same_draws(*traces)


DRIFTS, INTEGRATORS, STARTS = (
    ("plain", "control_variate", "tilted", "auto"),
    ("leimkuhler_matthews", "euler"),
    ("gaussian", "anchor"),
)


def with_all_pairs():
    """Yields every combination; half of them are quick and cover every pair of settings."""
    for one, two, three in itertools.product(range(4), range(2), range(2)):
        quick = (one + two + three) % 2 == 0
        yield pytest.param(DRIFTS[one], INTEGRATORS[two], STARTS[three], marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("drift", "integrator", "start"), [*with_all_pairs()])
def test_engines_give_the_same_draws_with_each_drift_integrator_and_start(drift, integrator, start):
    """Twelve samples in minibatches of five: a partition of four each."""
    changes = {"drift": drift, "integrator": integrator, "start": start, "batch_size": 5, "lr": 2e-2}
    module = Net()
    traces = [sampler(module, engine, **changes).run(2) for engine in ("sequential", "batched")]
    assert_same_draws(*traces)
    assert traces[0].minibatch_noise > 0


def test_engines_give_the_same_draws_with_ekfac():
    pytest.importorskip("curvlinops")
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4))

    def half_squared(module, batch):
        return squared(module, batch)

    changes = {"preconditioner": EKFAC(loss="mse"), "lr": 0.8, "weight_decay": 0.1}
    traces = [sampler(module, engine, half_squared, **changes).run() for engine in ("sequential", "batched")]
    assert_same_draws(*traces)


@pytest.mark.parametrize(
    ("drift", "engine"),
    [
        *((drift, "sequential") for drift in ("plain", "control_variate", "tilted")),
        ("control_variate", "batched"),
        pytest.param("plain", "batched", marks=pytest.mark.slow),
        pytest.param("tilted", "batched", marks=pytest.mark.slow),
    ],
)
def test_a_subset_of_chains_equals_the_same_chains_of_a_whole_run(engine, drift):
    module = Net()
    changes = {"drift": drift, "num_chains": 5, "batch_size": 5}
    whole = sampler(module, engine, **changes).run(4)
    some = sampler(module, engine, **changes).run(4, numbers=[1, 4])
    assert some.chains == (1, 4)
    np.testing.assert_allclose(some.loss, whole.loss[[1, 4]], rtol=0 if engine == "sequential" else 1e-5)


def test_engines_give_the_same_draws_in_chunks_and_in_double_precision():
    module = Net().double()
    batch = (X.double(), Y.double())
    one = sampler(module, "sequential", batch=batch).run()
    many = sampler(module, "batched", batch=batch, chunk_size=5).run()
    assert_same_draws(one, many, tolerance=1e-6)


SMALL = {"vocab_size": 17, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16}


def neox(**more):
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, max_position_embeddings=16, **more))


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL, max_position_embeddings=16))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=17, n_embd=8, n_layer=1, n_head=2, n_positions=16))


@pytest.mark.parametrize(
    ("model", "padded"),
    [
        pytest.param(neox, False, id="neox"),
        pytest.param(lambda: neox(attn_implementation="eager"), True, id="neox-eager-padded", marks=pytest.mark.slow),
        pytest.param(llama, True, id="llama-padded", marks=pytest.mark.slow),
        pytest.param(gpt2, False, id="gpt2", marks=pytest.mark.slow),
    ],
)
def test_engines_give_the_same_draws_of_a_language_model(model, padded):
    module = model().eval()
    ids = torch.randint(17, (6, 9))
    seen = torch.arange(9) < torch.tensor([[9], [5], [9], [7], [3], [9]])
    batch = {"input_ids": ids, "attention_mask": seen.long()} if padded else ids
    run = [sampler(module, engine, causal_lm_loss, batch) for engine in ("sequential", "batched")]
    assert_same_draws(*(one.run() for one in run), tolerance=1e-4)
    assert run[1]._choice._program._traced


def test_traced_graph_follows_weights_and_buffers_from_probe_to_probe():
    module = Net()
    module.second.register_parameter("frozen", nn.Parameter(torch.zeros(1), requires_grad=False))
    one, many = sampler(module, "sequential"), sampler(module, "batched")
    many.run()
    program = many._choice._program
    with torch.no_grad():
        module.first.weight.add_(0.3)
        module.shift.add_(0.7)
        module.norm.running_mean.add_(0.2)
    assert_same_draws(one.run(1), many.run(1))
    assert many._choice._program is program


def test_module_with_hidden_state_is_retraced():
    module = nn.Linear(4, 4)
    scale = [1.0]

    def loss(module, batch):
        return squared(module, batch) * scale[0]

    one, many = sampler(module, "sequential", loss), sampler(module, "batched", loss)
    many.run()
    scale[0] = 2.0
    assert_same_draws(one.run(), many.run())


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2 if float(x.sum()) > 0 else 1)


class Unfollowable(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2 if float(self.weight.sum()) > 0 else 1)


def test_module_that_cannot_be_traced_is_called_at_every_step():
    """The module branches on data shared by all chains: vmap supports this, a graph does not."""
    module = Branching(4, 4)
    one, many = (sampler(module, engine, batch_size=12) for engine in ("sequential", "batched"))
    assert_same_draws(one.run(), many.run())
    assert not many._choice._program._traced


def test_module_that_cannot_be_batched_is_refused_by_batched_and_accepted_by_auto():
    module = Unfollowable(4, 4)
    with pytest.raises(InputError, match=r"got engine=batched, which cannot run .*; set engine to sequential"):
        sampler(module, "batched").run()
    asked = sampler(module, "auto")
    assert asked.run().engine == "sequential"


def test_module_whose_batched_losses_differ_is_refused():
    module = nn.Linear(4, 4)
    calls = []

    def loss(module, batch):
        calls.append(1)
        return squared(module, batch) + len(calls)

    with pytest.raises(InputError, match="losses at the training weights differ"):
        sampler(module, "batched", loss).run()


@pytest.mark.parametrize("faster", ["sequential", "batched"])
def test_auto_chooses_the_faster_engine_once_and_keeps_it(monkeypatch, faster):
    asked = []

    def seconds(self, engine, repeats):
        asked.append(engine)
        return 0.1 if (len(engine.state) == 1) == (faster == "sequential") else 0.2

    monkeypatch.setattr(select.EngineChoice, "_seconds", seconds)
    auto = sampler(Net(), "auto")
    assert auto.engine is None
    assert auto.run().engine == faster
    timed = len(asked)
    assert auto.run(1).engine == faster
    assert len(asked) == timed


def test_auto_does_not_try_to_batch_long_steps(monkeypatch):
    monkeypatch.setattr(select, "_LONG_STEP", 0.0)
    monkeypatch.setattr(select.EngineChoice, "_agreeing", lambda *_: pytest.fail("tried"))
    assert sampler(Net(), "auto").run().engine == "sequential"


def test_resumed_run_keeps_the_engine_chosen_by_auto():
    module = Net()
    config = SGLDConfig(lr=1e-2, localization=20, num_draws=2, batch_size=4, num_burnin_steps=1)
    resumed = ChainSampler(module, Target(squared, (X, Y)), config, engine="batched")
    assert resumed.engine == "batched"
    assert resumed.run().engine == "batched"


def test_diverging_chain_in_a_batch_does_not_affect_the_others():
    module = nn.Linear(4, 4)
    control = {"nbeta": 0, "lr": 0.02, "num_draws": 8}
    whole = sampler(module, "batched", **control).run()
    limit = float((whole.mean_loss() - whole.mean_anchor_loss()).max(axis=1).max()) * 0.999
    traces = [sampler(module, engine, max_loss_rise=limit, **control).run() for engine in ("sequential", "batched")]
    assert traces[0].dropped.keys() == traces[1].dropped.keys() != set()
    assert_same_draws(*traces)
    np.testing.assert_allclose(traces[1].loss, whole.loss[list(traces[1].chains)], rtol=1e-5)


def test_batched_engine_sees_autocast():
    module = nn.Linear(4, 4)
    config = SGLDConfig(lr=1e-2, nbeta=20, localization=20, num_draws=5, batch_size=4, engine="batched")
    mixed = ChainSampler(
        module, Target(squared, (X, Y), forward_context=lambda: torch.autocast("cpu", dtype=torch.bfloat16)), config
    ).run()
    full = ChainSampler(module, Target(squared, (X, Y)), config).run()
    assert not np.allclose(mixed.loss, full.loss, rtol=1e-6)
    np.testing.assert_allclose(mixed.mean_loss(), full.mean_loss(), rtol=0.05)


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_losses_are_reduced_draw_by_draw(engine):
    module = Net()

    def tokens(module, batch):
        return (module(batch[0]) - batch[1]) ** 2

    settings = {"lr": 1e-2, "nbeta": 20, "localization": 20, "num_chains": 2, "num_draws": 4}
    config = SGLDConfig(**settings, num_burnin_steps=1, batch_size=4, engine=engine)
    target = Target(tokens, (X, Y))
    whole = ChainSampler(module, target, config).run()
    reduced = ChainSampler(module, target, config, reduce=lambda losses: losses[:, :2].double().sum(1)).run()
    assert reduced.loss.shape == (2, 4, 12)
    np.testing.assert_allclose(reduced.reduced, whole.loss[..., :2].sum(-1), rtol=1e-5)
    np.testing.assert_allclose(reduced.sample_losses(), whole.sample_losses(), rtol=1e-5)
    np.testing.assert_allclose(reduced.mean_loss(), whole.mean_loss(), rtol=1e-5)


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_minibatch_noise_is_the_heat_of_the_gradient_variance(engine):
    """Least squares: the variance of a minibatch gradient in closed form, at nearly the minimum.

    It is nearly the same in all three directions, so that it does not matter along which it is taken.
    """
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(400, 3, generator=generator), torch.randn(400, 1, generator=generator)
    module = nn.Linear(3, 1, bias=False)
    module.weight.data = torch.linalg.lstsq(x, y).solution.T
    settings = {"lr": 1e-6, "nbeta": 300, "localization": 1.0, "num_draws": 2, "num_burnin_steps": 0, "batch_size": 5}
    settings |= {"start": "anchor", "drift": "plain"}
    gradients = (x @ module.weight.data.T - y) * x
    # Without replacement.
    variance = gradients.var(dim=0).mean() / 5 * (1 - 5 / 400)
    found = []
    for seed in range(1 if engine == "batched" else 300):
        config = SGLDConfig(**{**settings, "num_chains": 300 if engine == "batched" else 1}, engine=engine, seed=seed)
        target = Target(squared, (x[:2], y[:2]), (x, y))
        found.append(ChainSampler(module, target, config).run().minibatch_noise)
    assert np.mean(found) == pytest.approx(1e-6 * 300**2 / 4 * float(variance), rel=0.2)


def test_whole_batches_have_no_minibatch_noise():
    assert sampler(nn.Linear(4, 4), "batched", batch_size=12).run().minibatch_noise == 0


class Remembering(nn.Module):
    """Module that stores results of its forward passes, and creates a mask in the first."""

    def __init__(self):
        super().__init__()
        self.layer, self.mask, self.last, self.all = nn.Linear(4, 3), None, None, []

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.ones(x.shape[-1])
        self.last = self.layer(x * self.mask)
        self.all.append(self.last)
        return self.last


@pytest.mark.parametrize("engine", ["batched", "auto"])
def test_attributes_set_by_forward_are_never_tensors_of_a_trace(engine):
    torch.manual_seed(0)
    module = Remembering()
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    found = {}
    for name in ("sequential", engine):
        settings = {"num_chains": 2, "num_draws": 3, "batch_size": 4, "num_burnin_steps": 1, "num_steps_bw_draws": 1}
        config = SGLDConfig(lr=1e-3, nbeta=10, localization=20, engine=name, **settings)
        trace = run_chains(
            module,
            lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1], reduction="none"),
            observed=(x, y),
            sampling=(x, y),
            config=config,
        )
        found[name] = trace.loss
        assert not trace.dropped
        assert (module.mask, module.last, module.all) == (None, None, [])
    np.testing.assert_allclose(found[engine], found["sequential"], rtol=1e-4, atol=1e-5)
