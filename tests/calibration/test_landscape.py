"""The curvature that each kind of chain meets, against dense matrices."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from stagewise.calibration.landscape import Landscape
from stagewise.errors import InputError
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.target import Target
from tests.calibration.test_curvature import dense, mlp, regression, squared

CONFIG = SGLDConfig(lr=1e-3, nbeta=30.0, localization=20.0, weight_decay=0.5, batch_size=20)
EXACT = {"tolerance": 1e-6, "num_samples": 20}


def total(nbeta, diagonal=None):
    """P^(1/2) (nbeta (H + weight decay) + localization) P^(1/2) of the small MLP."""
    matrix = dense(mlp(), squared, regression())
    eye = torch.eye(len(matrix), dtype=torch.float64)
    matrix = nbeta * (matrix + 0.5 * eye) + 20 * eye
    root = torch.ones(len(matrix), dtype=torch.float64) if diagonal is None else diagonal.sqrt()
    return torch.linalg.eigvalsh(root[:, None] * matrix * root)


def gradient():
    module = mlp()
    squared(module, regression()).mean().backward()
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_weight_decay_of_the_target_is_part_of_its_curvature():
    measured = Landscape(Target(squared, regression()), **EXACT).measure(mlp(), CONFIG, step=3)
    ends = torch.linalg.eigvalsh(dense(mlp(), squared, regression())) + 0.5
    assert measured.plain.lam_max == pytest.approx(float(ends[-1]), rel=1e-6)
    assert measured.plain.lam_min == pytest.approx(float(ends[0]), abs=1e-6 * float(ends[-1]))
    assert (measured.preconditioned, measured.plain.step) == (None, 3)
    assert measured.as_lists() == ([measured.plain], [])


def test_rmsprop_is_taken_from_gradients_at_the_training_weights():
    """Batches as large as the set: v is the squared gradient."""
    config = replace(CONFIG, preconditioner=RMSprop(eps=0.05), num_burnin_steps=3)
    measured = Landscape(Target(squared, regression()), **EXACT).measure(mlp(), config)
    flat = torch.cat([part.reshape(-1) for part in gradient().values()])
    exact = total(30, 1 / (flat.abs() + 0.05))
    assert measured.preconditioned.lam_max == pytest.approx(float(exact[-1]), rel=1e-6)
    assert measured.preconditioned.lam_min == pytest.approx(float(exact[0]), abs=1e-6 * float(exact[-1]))


def test_adam_moments_are_those_that_were_given():
    moments = {name: part.square() for name, part in gradient().items()}
    config = replace(CONFIG, preconditioner=AdamMoments(eps=0.2))
    measured = Landscape(Target(squared, regression()), second_moments=moments, **EXACT).measure(mlp(), config)
    flat = torch.cat([part.reshape(-1) for part in moments.values()])
    scale = flat.mean().sqrt()
    exact = total(30, scale / (flat.sqrt() + 0.2 * scale))
    assert measured.preconditioned.lam_max == pytest.approx(float(exact[-1]), rel=1e-6)


def test_ekfac_is_exact_for_linear_regression_so_every_direction_has_curvature_one():
    pytest.importorskip("curvlinops")

    def half_squared(module, batch):
        return (module(batch[0]) - batch[1]).square().sum(dim=1) / 2

    module = nn.Linear(4, 3).double()
    config = replace(CONFIG, preconditioner=EKFAC(loss="mse"), lr=0.2)
    measured = Landscape(Target(half_squared, regression()), **EXACT).measure(module, config)
    assert measured.preconditioned.lam_max == pytest.approx(1, rel=1e-9)
    assert measured.preconditioned.lam_min == pytest.approx(1, rel=1e-9)


def test_preconditioned_curvature_waits_for_the_localization():
    config = replace(CONFIG, localization="auto", preconditioner=RMSprop(), num_burnin_steps=3)
    assert Landscape(Target(squared, regression()), **EXACT).measure(mlp(), config).preconditioned is None


def test_few_samples_overstate_both_ends():
    """On average over halves of the set: the largest eigenvalue is convex in the matrix."""
    x, y = regression(40)
    whole = Landscape(Target(squared, (x, y)), num_samples=40, tolerance=1e-6).measure(mlp(), CONFIG).plain
    halves = [
        Landscape(Target(squared, (x[part], y[part])), num_samples=20, tolerance=1e-6).measure(mlp(), CONFIG).plain
        for part in (slice(0, 20), slice(20, 40))
    ]
    assert sum(halve.lam_max for halve in halves) / 2 >= whole.lam_max
    assert sum(halve.lam_min for halve in halves) / 2 <= whole.lam_min


def test_unsettled_settings_run_no_chain():
    for unsettled in ({"lr": "auto"}, {"localization": "auto"}):
        with pytest.raises(InputError, match="expected numbers where chains run"):
            run_chains(
                mlp(), squared, observed=regression(), sampling=regression(), config=replace(CONFIG, **unsettled)
            )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": "fast"}, "got lr='fast'; expected a finite number > 0 or 'auto'"),
        ({"localization": "automatic"}, "got localization='automatic'; expected a finite number >= 0 or 'auto'"),
        ({"localization": "auto", "nbeta": 0.0}, "expected nbeta > 0"),
    ],
)
def test_other_words_than_auto_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        SGLDConfig(**settings)
