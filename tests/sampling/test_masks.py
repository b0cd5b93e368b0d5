"""Chains that move part of a parameter behave as if the rest were a constant of the model."""

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.calibration.curvature import measure_curvature
from stagewise.calibration.landscape import Landscape
from stagewise.errors import InputError
from stagewise.influence.baselines.damped import damped_influence
from stagewise.influence.baselines.graddot import gradient_dot
from stagewise.influence.groups import Groups
from stagewise.lm.components import component_masks, components
from stagewise.lm.module import build_model
from stagewise.losses.contract import causal_lm_loss
from stagewise.sampling.chains import ChainSampler, run_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.selection import masks_digest
from stagewise.sampling.target import Target
from tests.lm.test_components import CASES
from tests.sampling.small_net import Net, X, Y
from tests.sampling.test_chains import regression, squared
from tests.sampling.test_engines import assert_same_draws

ENGINES = ["sequential", "batched"]
SETTINGS = [
    {},
    {"drift": "control_variate", "num_burnin_steps": 3},
    {"drift": "tilted", "weight_decay": 0.1},
    {"drift": "tilted", "batch_size": 40},
    {"preconditioner": RMSprop(alpha=0.8, eps=0.05), "num_burnin_steps": 4},
    {"preconditioner": AdamMoments()},
]


def config(engine="sequential", **changes):
    settings = {"lr": 1e-3, "nbeta": 20, "localization": 20, "num_chains": 3, "num_draws": 6, "batch_size": 4}
    return SGLDConfig(**{**settings, "num_burnin_steps": 2, "engine": engine, **changes})


def run(module, batch, settings, loss=squared, moments=None, masks=None):
    data = {"observed": batch, "sampling": batch, "config": settings}
    return run_chains(module, loss, **data, second_moments=moments, masks=masks)


class Rest(nn.Module):
    """The linear model below, with one weight constant."""

    def __init__(self, weight, column):
        super().__init__()
        kept = [item for item in range(weight.shape[1]) if item != column]
        self.weight = nn.Parameter(weight[:, kept].detach().clone())
        self.register_buffer("constant", weight[:, [column]].detach().clone())
        self.kept, self.column = kept, column

    def forward(self, x):
        return x[:, self.kept] @ self.weight.T + x[:, [self.column]] @ self.constant.T


@pytest.fixture
def pair():
    """Returns a module, a mask without its middle weight, and the equivalent smaller model."""
    x, y = regression(num=40)
    module = nn.Linear(3, 1, bias=False).double()
    return module, {"weight": torch.tensor([[True, False, True]])}, Rest(module.weight, 1), (x, y)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("changes", SETTINGS)
def test_a_masked_chain_equals_that_of_a_model_with_the_other_weights_constant(pair, engine, changes):
    module, masks, small, batch = pair
    moments = {"weight": torch.tensor([[0.5, 9.0, 0.1]], dtype=torch.float64)}
    of_small = {"weight": moments["weight"][:, [0, 2]]}
    got = run(module, batch, config(engine, **changes), moments=moments, masks=masks)
    want = run(small, batch, config(**changes), moments=of_small)
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-6)
    np.testing.assert_allclose(got.distance, want.distance, rtol=1e-6)
    np.testing.assert_allclose(got.gradient_rms, want.gradient_rms, rtol=1e-9)
    if engine == "sequential":  # the batched engine takes it from all chains
        assert got.minibatch_noise == pytest.approx(want.minibatch_noise, rel=1e-9)
    assert got.loss.std(axis=1).max() > 0


def test_masked_curvature_and_baselines_equal_those_of_a_model_with_the_other_weights_constant(pair):
    module, masks, small, batch = pair
    for preconditioner in (None, AdamMoments(), RMSprop()):
        settings = config(preconditioner=preconditioner, num_burnin_steps=5, batch_size=40)
        moments = {"weight": torch.tensor([[0.5, 9.0, 0.1]])}
        got = Landscape(Target(squared, batch, selection=masks), second_moments=moments).measure(module, settings)
        of_small = {"weight": moments["weight"][:, [0, 2]]}
        want = Landscape(Target(squared, batch), second_moments=of_small).measure(small, settings)
        assert got.plain.lam_max == pytest.approx(want.plain.lam_max, rel=1e-9)
        assert got.plain.lam_min == pytest.approx(want.plain.lam_min, rel=1e-9)
        if preconditioner is not None:
            assert got.preconditioned.lam_max == pytest.approx(want.preconditioned.lam_max, rel=1e-9)
    whole = measure_curvature(module, Target(squared, batch))
    assert whole.lam_max != pytest.approx(got.plain.lam_max, rel=1e-5)
    groups = Groups({"even": np.arange(40) % 2 == 0, "odd": np.arange(40) % 2 == 1}, np.ones(40, dtype=bool))
    np.testing.assert_allclose(
        gradient_dot(module, Target(squared, batch, selection=masks), groups),
        gradient_dot(small, Target(squared, batch), groups),
    )
    how = {"posterior": LocalPosterior(20, 10)}
    want = damped_influence(small, Target(squared, batch), groups, **how)
    for limit in (0, 1000):
        got = damped_influence(module, Target(squared, batch, selection=masks), groups, dense_limit=limit, **how)
        np.testing.assert_allclose(got, want, rtol=1e-4)


class Readable(nn.Module):
    """Module whose observed losses are its weights, so that losses show the place of a chain."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.second = nn.Linear(2, 3)

    def read(self, batch):
        selectors, x = batch
        weights = torch.cat([weight.reshape(-1) for weight in self.parameters()])
        loss = self.second(torch.tanh(self.first(x))).square().sum(1)
        return torch.where(selectors.any(1), (selectors * weights).sum(1), loss)


def kinds_of_chains():
    """Every combination; the batched engine, whose tracing takes longest, has each type and preconditioner once."""
    plain, running = None, RMSprop(frozen=False)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for preconditioner in (plain, running):
            quick = (preconditioner is running) == (dtype is torch.float64)
            yield "sequential", dtype, preconditioner
            yield pytest.param("batched", dtype, preconditioner, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("engine", "dtype", "preconditioner"), [*kinds_of_chains()])
def test_weights_outside_of_the_mask_stay_at_the_anchor_bit_for_bit(engine, dtype, preconditioner):
    module = Readable().to(dtype)
    before = torch.cat([weight.detach().reshape(-1) for weight in module.parameters()])
    masks = {name: torch.rand(item.shape) < 0.5 for name, item in module.named_parameters() if name != "second.bias"}
    moves = torch.cat(
        [masks.get(n, torch.zeros(item.shape).bool()).reshape(-1) for n, item in module.named_parameters()]
    )
    observed = (torch.eye(17).to(dtype), torch.zeros(17, 3, dtype=dtype))
    sampling = (torch.zeros(9, 17, dtype=dtype), torch.randn(9, 3).to(dtype))
    settings = config(engine, lr=0.01, preconditioner=preconditioner)
    trace = run_chains(module, Readable.read, observed=observed, sampling=sampling, config=settings, masks=masks)
    stays = trace.loss[..., ~moves.numpy()]
    np.testing.assert_array_equal(stays, np.broadcast_to(before[~moves].float().numpy(), stays.shape))
    assert (trace.loss[..., moves.numpy()] != before[moves].float().numpy()).mean() > 0.9
    moved = np.linalg.norm(trace.loss.astype(float) - before.double().numpy(), axis=-1)
    np.testing.assert_allclose(trace.distance, moved, rtol=1e-4 if dtype != torch.bfloat16 else 0.05)
    assert torch.equal(torch.cat([weight.detach().reshape(-1) for weight in module.parameters()]), before)


@pytest.mark.parametrize(
    ("engine", "changes"),
    [
        *(("sequential", changes) for changes in SETTINGS),
        ("batched", SETTINGS[1]),
        *(pytest.param("batched", changes, marks=pytest.mark.slow) for changes in (*SETTINGS[:1], *SETTINGS[2:])),
    ],
)
def test_an_all_true_mask_equals_no_mask_bit_for_bit(engine, changes):
    module = Net()
    moments = {"first.weight": torch.rand(4, 4), "norm.bias": torch.rand(4)}
    masks = {name: torch.ones(item.shape, dtype=torch.bool) for name, item in module.named_parameters()}
    some = {name: mask for name, mask in masks.items() if name.startswith("first")}
    none = {"norm.weight": torch.zeros(4, dtype=torch.bool)}
    cases = ((masks, None), (some | none, ["first.*"]))
    # The selection of weights is common to both engines: the slower one runs only the harder case.
    for given, patterns in cases if engine == "sequential" else cases[1:]:
        got = run(module, (X, Y), config(engine, **changes), moments=moments, masks=given)
        want = run(module, (X, Y), config(engine, **changes, parameters=patterns), moments=moments)
        for name in ("loss", "distance", "gradient_rms"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        assert got.minibatch_noise == want.minibatch_noise


@pytest.mark.slow  # a language model without masks, and masks of small networks, are quick tests
@pytest.mark.parametrize("kind", ["gpt_neox", "gpt2", "llama-grouped"])
def test_engines_give_the_same_draws_of_a_head(kind):
    model_type, settings = CASES[kind]
    model = build_model(model_type, config=settings, init_std=0.3).eval()
    ids = torch.randint(24, (6, 8))
    masks = component_masks(model, "layer1.head2")
    samplers = [
        ChainSampler(model, Target(causal_lm_loss, ids, selection=masks), config(engine, lr=0.01)) for engine in ENGINES
    ]
    traces = [sampler.run() for sampler in samplers]
    assert samplers[1]._choice._program._traced
    assert_same_draws(*traces, tolerance=1e-4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    program = samplers[1]._choice._program
    assert_same_draws(*(sampler.run(1) for sampler in samplers), tolerance=1e-4)
    assert samplers[1]._choice._program is program


def test_chains_of_different_heads_differ():
    model = build_model("gpt_neox", config=CASES["gpt_neox"][1], init_std=0.3).eval()
    ids = torch.randint(24, (6, 8))
    losses = [
        run(
            model, ids, config(lr=0.01, num_chains=1, num_draws=3), causal_lm_loss, masks=component_masks(model, name)
        ).loss
        for name in components(model)
    ]
    assert all(not np.allclose(losses[0], other, rtol=1e-4) for other in losses[1:])


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({"weigth": torch.ones(4, 4, dtype=torch.bool)}, r"'weigth', which the module does not have; .*'weight'"),
        ({"weight": torch.ones(4, dtype=torch.bool)}, r"got a mask of \[4\], torch.bool for 'weight'; .*\[4, 4\]"),
        ({"weight": torch.ones(4, 4)}, r"torch.float32 for 'weight'; expected a bool tensor"),
        ({"weight": [True]}, "expected a (mapping, each entry a Tensor|bool tensor)"),
        ({"weight": torch.zeros(4, 4, dtype=torch.bool)}, "select nothing"),
        ({}, "select nothing"),
        ({"bias": torch.ones(4, dtype=torch.bool)}, "'bias', which is frozen; .*unfreeze"),
    ],
)
def test_masks_that_do_not_fit_are_refused_before_any_run(masks, words):
    module = nn.Linear(4, 4)
    module.bias.requires_grad_(False)
    for make in (
        lambda: ChainSampler(module, Target(squared, (X, Y), selection=masks), config()),
        lambda: measure_curvature(module, Target(squared, (X, Y), selection=masks)),
    ):
        with pytest.raises(InputError, match=words):
            make()


def test_masks_together_with_name_patterns_are_refused():
    masks = {"weight": torch.eye(4, dtype=torch.bool)}
    with pytest.raises(InputError, match=r"masks together with parameters=\['weight'\]"):
        run(nn.Linear(4, 4), (X, Y), config(parameters=["weight"]), masks=masks)


def test_partial_parameters_are_refused_with_ekfac():
    masks = {"weight": torch.eye(4, dtype=torch.bool)}
    settings = config(preconditioner=EKFAC(loss="mse"), batch_size=12)
    words = "got a mask that moves 4 of 16 entries of 'weight' with EKFAC; expected whole parameters"
    with pytest.raises(InputError, match=words):
        ChainSampler(nn.Linear(4, 4), Target(squared, (X, Y), selection=masks), settings)
    with pytest.raises(InputError, match=words):
        Landscape(Target(squared, (X, Y), selection=masks)).measure(nn.Linear(4, 4), settings)
    whole = {"weight": torch.ones(4, 4, dtype=torch.bool)}
    ChainSampler(nn.Linear(4, 4), Target(squared, (X, Y), selection=whole), settings)


def test_a_digest_depends_on_the_selection_alone():
    eye, none = torch.eye(4, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    found = masks_digest({"a": eye, "b": ~eye})
    assert found == masks_digest({"b": ~eye, "a": eye.clone(), "c": none})
    assert len({found, masks_digest({"a": eye}), masks_digest({"a": ~eye, "b": eye}), masks_digest({"b": eye})}) == 4
