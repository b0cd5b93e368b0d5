from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.losses.contract import evaluate
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import EngineName, Integrator, SGLDConfig
from stagewise.sampling.preconditioners.diagonal import RMSprop, RunningRMSprop
from stagewise.sampling.streams import chain_streams


def squared(module, batch):
    return ((module(batch[0]) - batch[1]) ** 2).sum(1) / 2


def regression(num=40, features=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, features, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)[:features]
    return x, y + 0.3 * torch.randn(num, 1, generator=generator, dtype=torch.float64)


def linear(x, y):
    """Least-squares fit, so that the chain starts at the mode."""
    module = nn.Linear(x.shape[1], 1, bias=False).double()
    module.weight.data = torch.linalg.lstsq(x, y).solution.T
    return module


@pytest.mark.parametrize("preconditioner", [None, RMSprop(alpha=0.9, eps=0.3)])
def test_covariance_is_that_of_the_exact_posterior(preconditioner):
    """Bayesian linear regression: Cov(l_i, l_j) in closed form, losses being quadratic in a Gaussian."""
    x, y = regression()
    module = linear(x, y)
    nbeta, localization = 200.0, 20.0
    config = SGLDConfig(
        lr=4e-4 if preconditioner is None else 2e-4,
        nbeta=nbeta,
        localization=localization,
        num_chains=3,
        num_draws=3000,
        num_burnin_steps=150,
        num_steps_bw_draws=2,
        batch_size=40,
        preconditioner=preconditioner,
    )
    trace = run_chains(module, squared, observed=(x, y), sampling=(x, y), config=config)
    losses = trace.loss.reshape(-1, 40).astype(np.float64)
    got = np.cov(losses.T)
    posterior = torch.linalg.inv(nbeta * x.T @ x / len(x) + localization * torch.eye(3, dtype=torch.float64))
    gradients = (x @ module.weight.T - y) * x
    inner = x @ posterior @ x.T
    want = (gradients @ posterior @ gradients.T + inner**2 / 2).detach().numpy()
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.97
    assert np.trace(got) == pytest.approx(np.trace(want), rel=0.15)


ENGINES = [EngineName.sequential, EngineName.batched]


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_draws_equal_a_plain_loop(engine, plain, published):
    """The default integrator and start, and those of published runs."""
    x, y = regression(num=12)
    module = linear(x, y).float()
    batch = (x.float(), y.float())
    config = SGLDConfig(
        lr=1e-3,
        nbeta=50,
        localization=30,
        num_chains=2,
        num_draws=4,
        num_burnin_steps=3,
        num_steps_bw_draws=2,
        batch_size=5,
        seed=3,
        preconditioner=None if plain else RMSprop(alpha=0.8, eps=0.1),
        drift="plain",
        weight_decay=0.3,
        engine=engine,
        **({"integrator": "euler", "start": "anchor"} if published else {}),
    )
    trace = run_chains(module, squared, observed=batch, sampling=batch, config=config, step=9)
    for chain in range(2):
        noise_stream, batch_stream = chain_streams(config, chain, 9, torch.device("cpu"))
        w = anchor = module.weight.detach().clone()
        running = RunningRMSprop(RMSprop(alpha=0.8, eps=0.1), anchor.flatten())
        noises = torch.empty(config.num_steps + (0 if published else 2), 3).normal_(generator=noise_stream)
        if not published:
            share = config.lr * 30 / 4 if plain else 0.0
            w = anchor + ((1 - share) ** 0.5 * noises[0] + share**0.5 * noises[1]) / 30**0.5
            noises = (noises[1:-1] + noises[2:]) / 2
        recorded = []
        for index in range(config.num_steps):
            rows = torch.randperm(12, generator=batch_stream)[:5]
            gradient = ((batch[0][rows] @ w.T - batch[1][rows]) * batch[0][rows]).mean(0, keepdim=True) + 0.3 * w
            if index < 3:
                running.update(gradient.flatten())
            p = torch.ones(1, 3) if plain else running.preconditioner().diagonal.view(1, 3)
            noise = noises[index].view(1, 3)
            w = w - config.lr / 2 * p * (50 * gradient + 30 * (w - anchor)) + (config.lr * p).sqrt() * noise
            if index >= 3 and (index - 3) % 2 == 1:
                recorded.append(((batch[0] @ w.T - batch[1]) ** 2).sum(1) / 2)
        np.testing.assert_allclose(trace.loss[chain], torch.stack(recorded).numpy(), rtol=2e-4, atol=1e-5)


def small(**changes):
    settings = {"lr": 1e-3, "nbeta": 10, "localization": 10, "num_chains": 2, "num_draws": 6, "batch_size": 4}
    return SGLDConfig(**{**settings, "num_burnin_steps": 0, "engine": "sequential", **changes})


def run(module, batch, config, **more):
    return run_chains(module, squared, observed=batch, sampling=batch, config=config, **more)


@pytest.fixture
def case():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    return module, (torch.randn(10, 3), torch.randn(10, 1))


@pytest.mark.parametrize("engine", [*ENGINES, EngineName.auto])
def test_module_is_unchanged_bit_for_bit(case, engine):
    module, batch = case
    squared(module, batch).mean().backward()
    before = {name: (value.clone(), value.grad.clone()) for name, value in module.named_parameters()}
    state = torch.get_rng_state()
    run(module, batch, small(engine=engine))
    for name, value in module.named_parameters():
        assert torch.equal(value, before[name][0])
        assert torch.equal(value.grad, before[name][1])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(child.training for child in module.modules())


def test_same_seeds_give_the_same_draws_whatever_the_global_seed(case):
    module, batch = case
    first = run(module, batch, small())
    torch.manual_seed(123)
    assert np.array_equal(first.loss, run(module, batch, small()).loss)


def test_common_noise_repeats_over_steps_and_independent_noise_does_not(case):
    module, batch = case
    common = [run(module, batch, small(), step=step).loss for step in (1, 2)]
    fresh = [run(module, batch, small(common_noise=False), step=step).loss for step in (1, 2)]
    assert np.array_equal(*common)
    assert not np.array_equal(*fresh)


def test_chains_differ_in_noise_and_in_minibatches():
    config = small()
    streams = [chain_streams(config, chain, 0, torch.device("cpu")) for chain in range(2)]
    for left, right in zip(*streams, strict=True):
        assert not torch.equal(torch.randn(5, generator=left), torch.randn(5, generator=right))


def test_result_does_not_depend_on_the_chunk_size(case):
    module, batch = case
    whole = run(module, batch, small()).loss
    for chunk_size in (1, 3, 100):
        found = run(module, batch, small(), chunk_size=chunk_size).loss
        # Squares of residuals near zero have larger relative rounding errors.
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-7)


def test_frozen_parameters_are_not_part_of_the_chain(case):
    module, batch = case
    module[0].requires_grad_(False)
    config = small(nbeta=0.0, localization=0.0, num_draws=2, num_chains=1, integrator="euler", start="anchor")
    trace = run(module, batch, config)
    # Pure diffusion of the 9 free weights: E|w - w*|^2 = lr * steps * 9.
    assert 0 < trace.distance[0, 0] < np.sqrt(1e-3 * 9) * 3
    assert not module[0].weight.requires_grad


@pytest.mark.parametrize("integrator", Integrator)
def test_zero_nbeta_is_the_localized_gaussian(integrator):
    module = nn.Linear(50, 1, bias=False)
    batch = (torch.randn(4, 50), torch.randn(4, 1))
    settings = {"lr": 0.2, "nbeta": 0.0, "num_draws": 200, "num_burnin_steps": 10, "max_loss_rise": 1e3}
    trace = run(module, batch, small(integrator=integrator, **settings))
    want = 50 / 10 / (1 - 0.2 * 10 / 4 if integrator is Integrator.euler else 1)
    # 400 draws of 50 directions: a spread of 2 %.
    assert float((trace.distance**2).mean()) == pytest.approx(want, rel=0.07)


def test_token_losses_keep_their_axis_and_mask(case):
    module, (x, _) = case
    mask = torch.ones(10, 2, dtype=torch.bool)
    mask[3, 1] = False

    def tokens(module, batch):
        return (module(batch["x"]).square().expand(-1, 2), batch["mask"])

    batch = {"x": x, "mask": mask}
    trace = run_chains(module, tokens, observed=batch, sampling=batch, config=small())
    assert trace.loss.shape == (2, 6, 10, 2)
    assert trace.mask.tolist() == mask.tolist()
    assert (trace.loss[:, :, 3, 1] == 0).all()
    assert trace.sample_losses().shape == (2, 6, 10)
    assert trace.mean_loss()[0, 0] == pytest.approx(trace.loss[0, 0][mask.numpy()].mean(), rel=1e-5)


def test_diverging_chain_is_dropped_by_number_and_the_others_are_kept(case):
    module, batch = case
    calls = {"forwards": 0}

    def explodes(module, batch):
        calls["forwards"] += 1
        losses = squared(module, batch)
        # After the anchor, forwards alternate between a minibatch and a recording: this is the second recording.
        return losses * float("nan") if calls["forwards"] == 5 else losses

    trace = run_chains(module, explodes, observed=batch, sampling=batch, config=small(drift="plain"))
    assert trace.chains == (1,)
    assert list(trace.dropped) == [0]
    assert "nan" in trace.dropped[0]
    assert np.isfinite(trace.loss).all()


def test_chain_with_a_non_finite_gradient_is_dropped_before_its_next_step(case):
    module, batch = case
    calls = {"forwards": 0}

    def breaks(module, batch):
        calls["forwards"] += 1
        losses = squared(module, batch)
        # The second minibatch of chain 0: infinite only in the gradient.
        return losses + (losses * 0).abs().sqrt() if calls["forwards"] == 3 else losses

    config = small(num_steps_bw_draws=3, drift="plain")
    trace = run_chains(module, breaks, observed=batch, sampling=batch, config=config)
    assert trace.chains == (1,)
    assert trace.dropped == {0: "the gradient was not finite at step 1 of 18"}


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_non_finite_loss_at_the_anchor_drops_all_chains_with_that_reason(case, value):
    module, batch = case
    trace = run_chains(module, lambda m, b: squared(m, b) + value, observed=batch, sampling=batch, config=small())
    assert set(trace.dropped.values()) == {"the loss at the training weights is not finite"}


def test_sparse_gradients_work():
    module = nn.Embedding(5, 1, sparse=True)
    batch = torch.arange(5)
    trace = run_chains(module, lambda m, b: m(b)[:, 0].square(), observed=batch, sampling=batch, config=small())
    assert np.isfinite(trace.loss).all()


def test_chain_beyond_the_loss_rise_limit_is_dropped(case):
    module, batch = case
    trace = run(module, batch, small(lr=0.3, localization=1.0, max_loss_rise=1e-3, nbeta=0.0))
    assert not trace.chains
    assert trace.loss.shape == (0, 6, 10)
    assert set(trace.dropped) == {0, 1}


def test_autocast_sees_the_moving_weights(case):
    """Autocast caches casts of weights: the draws must not all repeat the first one."""
    module, batch = case
    config = small(lr=0.05, num_draws=8)
    mixed = run(module, batch, config, forward_context=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    full = run(module, batch, config, forward_context=nullcontext)
    assert mixed.loss.std(axis=1).min() > 0
    assert np.corrcoef(mixed.mean_loss().ravel(), full.mean_loss().ravel())[0, 1] > 0.9


def test_half_precision_weights_can_move_by_less_than_their_rounding():
    module = nn.Linear(3, 1).bfloat16()
    batch = (torch.randn(10, 3).bfloat16(), torch.randn(10, 1).bfloat16())
    config = small(lr=1e-8, localization=10.0, num_draws=50, start="anchor")
    trace = run(module, batch, config)
    # The state is kept in float32: the distance grows although single steps are below bfloat16's resolution.
    assert 0 < trace.distance[0, 0] < trace.distance[0, -1]


def test_parameters_unused_by_the_loss_are_allowed():
    module = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(3, 1)})
    batch = (torch.randn(5, 3), torch.randn(5, 1))
    trace = run_chains(module, lambda m, b: squared(m["used"], b), observed=batch, sampling=batch, config=small())
    assert np.isfinite(trace.loss).all()


def test_module_without_trainable_parameters_is_refused(case):
    module, batch = case
    with pytest.raises(InputError, match="trainable"):
        run(module.requires_grad_(False), batch, small())


def test_anchor_loss_is_the_loss_in_eval_mode(case):
    module, batch = case
    trace = run(module, batch, small())
    want = evaluate(squared, module.eval(), batch).values.detach().numpy()
    np.testing.assert_allclose(trace.anchor_loss, want)
