import math

import pytest
import torch

from stagewise.sampling.config import RMSprop
from stagewise.sampling.kernel import MeanSquare, sgld_step_


@pytest.mark.parametrize("preconditioner", [None, torch.tensor([0.5, 2.0, 3.0])])
def test_step_equals_its_formula(preconditioner):
    w, anchor, gradient, noise = (torch.randn(3, generator=torch.Generator().manual_seed(seed)) for seed in range(4))
    p = torch.ones(3) if preconditioner is None else preconditioner
    want = w - 0.05 * p * (7 * gradient + 11 * (w - anchor)) + torch.sqrt(0.1 * p) * noise
    sgld_step_(w, anchor, gradient, noise, lr=0.1, nbeta=7, localization=11, preconditioner=preconditioner)
    torch.testing.assert_close(w, want)


@pytest.mark.parametrize(("lr", "preconditioner"), [(0.02, None), (0.3, None), (0.1, 0.5)])
def test_gaussian_target_has_the_predicted_variance(lr, preconditioner):
    """Stationary variance 1/lam / (1 - lr P lam / 4) for the target exp(-lam w^2 / 2), at non-default settings too."""
    nbeta, curvature, localization = 3.0, 1.5, 2.0
    lam = nbeta * curvature + localization
    generator = torch.Generator().manual_seed(0)
    w, anchor, noise = torch.zeros(4000), torch.zeros(4000), torch.empty(4000)
    p = None if preconditioner is None else torch.full((4000,), preconditioner)
    total = 0.0
    for index in range(400 + 600):
        sgld_step_(
            w,
            anchor,
            curvature * w,
            noise.normal_(generator=generator),
            lr=lr,
            nbeta=nbeta,
            localization=localization,
            preconditioner=p,
        )
        if index >= 400:
            total += w.square().mean().item() / 600
    want = 1 / lam / (1 - lr * (preconditioner or 1.0) * lam / 4)
    assert total == pytest.approx(want, rel=0.03)


def test_mean_square_is_corrected_for_its_start_at_zero():
    running = MeanSquare(RMSprop(alpha=0.9, eps=0.2), torch.zeros(2))
    assert running.preconditioner().tolist() == pytest.approx([5.0, 5.0])
    for _ in range(3):
        running.update(torch.tensor([3.0, 0.0]))
    assert running.preconditioner().tolist() == pytest.approx([1 / 3.2, 5.0])


def test_mean_square_weights_recent_gradients():
    running = MeanSquare(RMSprop(alpha=0.5, eps=1e-9), torch.zeros(1))
    for value in (1.0, 2.0):
        running.update(torch.tensor([value]))
    v = (0.5 * 0.5 * 1 + 0.5 * 4) / (1 - 0.25)
    assert running.preconditioner().item() == pytest.approx(1 / math.sqrt(v), rel=1e-5)
