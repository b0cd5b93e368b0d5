"""What ``auto`` becomes, each rule against dense matrices or a plain loop."""

import warnings
from dataclasses import replace

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from stagewise.calibration.landscape import Landscape
from stagewise.calibration.resolve import HEAT_AIM, measure_heat, resolve
from stagewise.calibration.rules import FLOOR_SHARE, LOCALIZATION_MARGIN, STEP_AIM, two_digits
from stagewise.calibration.settings_check import landscape_of
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Drift, Integrator, SGLDConfig
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.relaxation import memory
from stagewise.sampling.target import Target
from tests.calibration.test_curvature import dense, mlp, regression, squared

EXACT = {"tolerance": 1e-6, "num_samples": 20}
WHOLE = SGLDConfig(nbeta=30.0, batch_size=20)
SMALL = replace(WHOLE, batch_size=2)


def landscape(**more):
    return Landscape(Target(squared, regression()), **(EXACT | more))


def rough():
    """For what does not rest on the figures."""
    return landscape(num_samples=4, tolerance=0.05)


def ends():
    found = torch.linalg.eigvalsh(dense(mlp(), squared, regression()))
    return float(found[0]), float(found[-1])


def one(config, **more):
    return resolve(config, landscape(), mlp(), **more)[0]


def steepest(nbeta, localization, diagonal=None, decay=0.0):
    matrix = dense(mlp(), squared, regression())
    eye = torch.eye(len(matrix), dtype=torch.float64)
    root = torch.ones(len(matrix), dtype=torch.float64) if diagonal is None else diagonal.sqrt()
    matrix = nbeta * (matrix + decay * eye) + localization * eye
    return float(torch.linalg.eigvalsh(root[:, None] * matrix * root)[-1])


def gradient():
    module = mlp()
    squared(module, regression()).mean().backward()
    return torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()])


@pytest.mark.parametrize("growth", [1.0, 2.0])
def test_localization_is_the_larger_of_its_two_needs(growth):
    low, high = ends()
    want = 30 * growth * max(LOCALIZATION_MARGIN * -low, FLOOR_SHARE * high)
    assert want <= one(WHOLE, growth=growth).localization <= 1.1 * want


@pytest.mark.parametrize("integrator", Integrator)
@pytest.mark.parametrize("growth", [1.0, 2.0])
@pytest.mark.parametrize("preconditioner", [None, RMSprop(eps=0.05)])
def test_step_is_the_aim_of_the_integrator_at_the_grown_curvature(integrator, growth, preconditioner):
    config = replace(
        WHOLE, localization=20.0, weight_decay=0.5, integrator=integrator, preconditioner=preconditioner,
        num_burnin_steps=3,
    )  # fmt: skip
    resolved = one(config, growth=growth)
    diagonal = None if preconditioner is None else 1 / (gradient().abs() + 0.05)
    # Two significant digits, rounded down.
    reach = resolved.lr * steepest(30 * growth, 20, diagonal, decay=0.5)
    assert 0.9 * STEP_AIM[integrator] < reach <= STEP_AIM[integrator] * (1 + 1e-6)


def plain_heat(config, drift):
    """Heat in each of the places by a plain loop over the definition, with generators of its own."""
    x, y = regression()
    module = mlp()
    generator = torch.Generator().manual_seed(123)
    parameters = list(module.parameters())
    anchor = [parameter.detach().clone() for parameter in parameters]

    def gradients(rows):
        loss = squared(module, (x[rows], y[rows])).mean()
        return torch.cat([item.reshape(-1) for item in torch.autograd.grad(loss, parameters)])

    found = []
    for _ in range(80):
        rows = [torch.randperm(20, generator=generator)[: config.batch_size] for _ in range(8)]
        at_anchor = [gradients(row) for row in rows]
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(
                    torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) / config.localization**0.5
                )
        here = [gradients(row) for row in rows]
        if drift is Drift.control_variate:
            here = [one - other for one, other in zip(here, at_anchor, strict=True)]
        direction = gradients(torch.arange(20))
        along = torch.stack(here) @ (direction / direction.norm())
        found.append(float(along.var() * config.lr * config.nbeta**2 / 4))
        with torch.no_grad():
            for item, start in zip(parameters, anchor, strict=True):
                item.copy_(start)
    return torch.tensor(found)


@pytest.mark.parametrize("drift", [Drift.plain, Drift.control_variate])
def test_heat_is_that_of_a_plain_loop_over_places_in_the_localizing_gaussian(drift):
    config = replace(SMALL, lr=0.02, localization=40.0)
    measured = torch.tensor([
        measure_heat(config, landscape(seed=seed), mlp(), [drift])[drift] for seed in range(20)
    ])  # fmt: skip
    loop = plain_heat(config, drift)
    # Means over 80 places each.
    assert float(measured.mean()) == pytest.approx(float(loop.mean()), rel=0.35)


@pytest.mark.parametrize("batch_size", [8, 40, 128])
def test_heat_measured_on_some_samples_is_that_of_minibatches_of_the_whole_set(batch_size):
    """As chains meet it: by a plain loop over the whole set, of which the curvature is measured on the first 40."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(160, 3, generator=generator, dtype=torch.float64)
    y = x[:, :1] + torch.randn(160, 1, generator=generator, dtype=torch.float64)

    def linear(module, batch):
        return module(batch[0])[:, 0] * batch[1][:, 0]

    module = nn.Linear(3, 1).double()
    config = replace(SMALL, batch_size=batch_size, lr=0.02, localization=40.0)
    whole = Target(linear, (x, y))
    limited = [landscape_of(module, whole, replace(config, seed=seed), 1.0) for seed in range(40)]
    first = [replace(one, target=Target(linear, (x[:40], y[:40]))) for one in limited]
    assert {one.population for one in first} == {160}
    measured = [measure_heat(config, one, module, [Drift.plain])[Drift.plain] for one in first]
    # A loss that is linear in the weights: gradients of each sample x y, and y, wherever the chain is.
    gradients = torch.cat([x * y, y], dim=1)
    drawn = torch.stack([gradients[torch.randperm(160, generator=generator)[:batch_size]].mean(0) for _ in range(4000)])
    direction = gradients[:40].mean(0) / gradients[:40].mean(0).norm()
    # The first 40 samples vary by something else than all 160.
    share = (gradients[:40] @ direction).var() / (gradients @ direction).var()
    want = float((drawn @ direction).var() * share * config.lr * config.nbeta**2 / 4)
    assert sum(measured) / len(measured) == pytest.approx(want, rel=0.15)


def test_minibatches_as_large_as_what_is_measured_are_hot_all_the_same():
    """Without the rest of the set it would pass for whole batches, whose drift is plain."""
    hot = replace(SMALL, nbeta=3000.0, batch_size=20, lr=0.02, localization=40.0)
    assert one(hot).drift is Drift.plain
    heats = measure_heat(hot, landscape(population=400), mlp(), [Drift.plain, Drift.control_variate])
    assert heats[Drift.control_variate] < heats[Drift.plain] > HEAT_AIM
    assert resolve(hot, landscape(population=400), mlp())[0].drift is Drift.control_variate


def test_drift_is_plain_where_its_minibatches_are_cool_and_control_variates_where_they_are_not():
    hot = replace(SMALL, lr=0.02, localization=40.0)
    heats = measure_heat(hot, landscape(), mlp(), [Drift.plain, Drift.control_variate])
    assert heats[Drift.control_variate] < heats[Drift.plain] > HEAT_AIM
    assert one(hot).drift is Drift.control_variate
    cool = replace(hot, lr=0.02 * 0.9 * HEAT_AIM / heats[Drift.plain])
    assert one(cool).drift is Drift.plain


def test_whole_batches_and_chains_without_loss_need_no_control_variates():
    assert one(WHOLE).drift is Drift.plain
    control = one(replace(SMALL, nbeta=0.0, localization=20.0))
    assert control.drift is Drift.plain
    # 2.5 / 20: the loss is not in the target.
    assert control.lr == 0.12
    assert "auto" not in (control.num_burnin_steps, control.num_steps_bw_draws)


@pytest.mark.parametrize(
    "drift",
    [
        Drift.plain,
        Drift.auto,
        pytest.param(Drift.control_variate, marks=pytest.mark.slow),
        pytest.param(Drift.tilted, marks=pytest.mark.slow),
    ],
)
def test_step_is_lowered_in_proportion_where_no_drift_is_cool(drift):
    config = replace(SMALL, drift=drift, nbeta=300.0)
    resolved = one(config)
    at_aim = replace(config, lr=two_digits(2.5 / steepest(300.0, resolved.localization), up=False))
    at_aim = replace(at_aim, localization=resolved.localization)
    kind = {Drift.auto: Drift.control_variate}.get(drift, drift)
    heat = measure_heat(at_aim, landscape(), mlp(), [kind])[kind]
    assert heat > HEAT_AIM
    assert resolved.drift is kind
    assert resolved.lr == two_digits(at_aim.lr * max(HEAT_AIM / heat, 0.1), up=False) < at_aim.lr
    # A number that was given stays, however hot.
    assert one(replace(at_aim, drift=drift)).lr == at_aim.lr


def test_burnin_waits_for_the_direction_that_the_loss_pulls_away():
    low, _ = ends()
    assert low < 0
    config = replace(WHOLE, lr=5e-3, localization=120.0)
    for growth in (1.0, 2.0):
        slowest = 5e-3 * (120 + growth * 30 * low)
        steps = one(config, growth=growth).num_burnin_steps
        assert memory(slowest) ** steps <= 0.1 * (1 + 1e-6)
        assert memory(slowest) ** (steps - 1) > 0.1
    assert steps > config.burnin_steps
    # Where nothing holds it back there is no burn-in to wait for: that is a finding.
    loose = replace(config, localization=-30 * low / 2)
    assert one(loose).num_burnin_steps == loose.burnin_steps


def test_burnin_of_rmsprop_is_as_long_as_it_adapts():
    assert one(replace(WHOLE, preconditioner=RMSprop())).num_burnin_steps >= 100


@pytest.mark.parametrize("reach", [0.02, 0.1, 0.5, 0.83, 2.0, 3.5])
def test_spacing_is_the_least_that_makes_draws_nearly_independent(reach):
    """In a direction that localization alone holds; never more than eight steps."""
    resolved = one(replace(WHOLE, lr=reach / 400, localization=400.0))
    a, found = 1 - reach / 2, resolved.num_steps_bw_draws
    correlations = [abs(a ** (steps - 1) * (1 + a) / 2) for steps in range(1, 9)]
    assert found == next((n for n, item in enumerate(correlations, start=1) if item <= 0.2), 8)
    assert one(replace(WHOLE, lr=reach / 4000, localization=400.0, integrator="euler")).num_steps_bw_draws == 1


GIVEN = {
    "lr": 3e-3,
    "localization": 77.0,
    "drift": Drift.tilted,
    "num_burnin_steps": 13,
    "num_steps_bw_draws": 5,
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("preconditioner", [None, AdamMoments()])
def test_what_was_given_is_kept_and_all_else_becomes_a_number(name, preconditioner):
    config = replace(SMALL, preconditioner=preconditioner, **{name: GIVEN[name]})
    resolved, _ = resolve(config, rough(), mlp())
    assert getattr(resolved, name) == GIVEN[name]
    assert resolved.unresolved == ()
    as_given = {item: getattr(config, item) for item in config.unresolved}
    assert SGLDConfig(**(vars(resolved) | as_given)) == config
    run_chains(mlp(), squared, observed=regression(), sampling=regression(), config=replace(resolved, num_draws=2))


def test_settings_without_auto_stay_as_they_are():
    config = replace(SMALL, **GIVEN)
    resolved, measured = resolve(config, landscape(), mlp())
    assert resolved == config
    assert measured.plain.lam_max == pytest.approx(ends()[1], rel=1e-5)


def test_ekfac_is_resolved_by_the_curvature_of_its_own_chain():
    pytest.importorskip("curvlinops")

    def half_squared(module, batch):
        return (module(batch[0]) - batch[1]).square().sum(dim=1) / 2

    module = nn.Linear(4, 3).double()
    config = replace(WHOLE, preconditioner=EKFAC(loss="mse"))
    resolved, measured = resolve(config, Landscape(Target(half_squared, regression()), **EXACT), module)
    # Exact for linear regression: every direction has curvature one.
    assert measured.preconditioned.lam_max == pytest.approx(1, rel=1e-6)
    # An iteration error of 1e-16 is enough to round down.
    assert resolved.lr in (2.4, 2.5)
    assert resolved.num_burnin_steps == 2
    assert memory(resolved.lr) ** 2 <= 0.1 < memory(resolved.lr)


@pytest.mark.parametrize("growth", [1.0, 2.0])
def test_the_plain_curvature_is_measured_once(growth, monkeypatch):
    roots = []
    measure = Landscape._curvature

    def counted(self, module, config, step, root):
        roots.append(root)
        return measure(self, module, config, step, root)

    monkeypatch.setattr(Landscape, "_curvature", counted)
    resolve(replace(SMALL, preconditioner=RMSprop()), rough(), mlp(), growth=growth)
    assert sum(root is None for root in roots) == 1


def test_heat_is_measured_without_localization_too():
    resolved = one(replace(SMALL, lr=1e-3, localization=0.0, start="anchor"))
    assert resolved.localization == 0
    assert resolved.unresolved == ()


@pytest.mark.parametrize("preconditioner", [None, RMSprop()])
def test_module_and_random_state_are_left_bit_for_bit(preconditioner):
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    squared(module, regression()).mean().backward()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    slopes = [weight.grad.clone() for weight in module.parameters()]
    state = torch.get_rng_state()
    resolve(replace(SMALL, preconditioner=preconditioner), rough(), module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(item.grad, other) for item, other in zip(module.parameters(), slopes, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(child.training for child in module.modules())


def test_same_checkpoint_gives_the_same_settings_whatever_the_global_seed():
    first = resolve(SMALL, rough(), mlp())
    torch.manual_seed(99)
    assert resolve(SMALL, rough(), mlp()) == first


def parsed(text):
    """As the command line reads it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--sgld", type=SGLDConfig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parser.instantiate_classes(parser.parse_args(["--sgld", text.removeprefix("sgld: ")])).sgld


PASTED = [
    SMALL,
    replace(WHOLE, lr=1e-5, localization=1.2345678e5, drift="plain"),
    replace(WHOLE, lr=1.23456789e-4, nbeta=1e16, seed=3, common_noise=False, weight_decay=0.01, integrator="euler"),
    replace(WHOLE, start="anchor", engine="sequential", parameters=["*layers.1*", "head.?"], max_loss_rise=0.5),
]


@pytest.mark.parametrize("config", PASTED)
def test_the_line_to_paste_reads_as_the_same_settings(config):
    for item in (config, one(replace(config, nbeta=30.0, parameters=None))):
        (words,) = yaml.safe_load(item.one_line()).values()
        assert SGLDConfig(**words) == item
        assert parsed(item.one_line()) == item
        assert "\n" not in item.one_line()


@pytest.mark.parametrize("preconditioner", [RMSprop(eps=1e-5, frozen=False), AdamMoments(eps=0.3), EKFAC(loss="mse")])
def test_the_line_to_paste_names_the_preconditioner(preconditioner):
    config = replace(WHOLE, preconditioner=preconditioner)
    assert parsed(config.one_line()) == config
