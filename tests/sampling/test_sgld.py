import pytest
import torch

from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.diagonal import Diagonal
from stagewise.sampling.sgld import sgld_step_


@pytest.mark.parametrize("preconditioner", [None, torch.tensor([0.5, 2.0, 3.0])])
def test_step_equals_its_formula(preconditioner):
    w, anchor, gradient, noise = (torch.randn(3, generator=torch.Generator().manual_seed(seed)) for seed in range(4))
    p = torch.ones(3) if preconditioner is None else preconditioner
    given = None if preconditioner is None else Diagonal(p)
    want = w - 0.05 * p * (7 * gradient + 11 * (w - anchor)) + torch.sqrt(0.1 * p) * noise
    sgld_step_(
        w,
        anchor,
        gradient,
        [noise],
        lr=0.1,
        posterior=LocalPosterior(7, 11),
        preconditioner=given,
    )
    torch.testing.assert_close(w, want)


@pytest.mark.parametrize(("lr", "preconditioner"), [(0.02, None), (0.3, None), (0.1, 0.5)])
def test_gaussian_target_has_the_predicted_variance(lr, preconditioner):
    """Stationary variance 1/lam / (1 - lr P lam / 4) for the target exp(-lam w^2 / 2), at non-default settings too."""
    nbeta, curvature, localization = 3.0, 1.5, 2.0
    lam = nbeta * curvature + localization
    generator = torch.Generator().manual_seed(0)
    w, anchor, noise = torch.zeros(4000), torch.zeros(4000), torch.empty(4000)
    p = None if preconditioner is None else Diagonal(torch.full((4000,), preconditioner))
    total = 0.0
    for index in range(400 + 600):
        sgld_step_(
            w,
            anchor,
            curvature * w,
            [noise.normal_(generator=generator)],
            lr=lr,
            posterior=LocalPosterior(nbeta, localization),
            preconditioner=p,
        )
        if index >= 400:
            total += w.square().mean().item() / 600
    want = 1 / lam / (1 - lr * (preconditioner or 1.0) * lam / 4)
    assert total == pytest.approx(want, rel=0.03)
