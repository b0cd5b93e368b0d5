import math

import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.diagonal import AdamMoments, Diagonal, RMSprop, RunningRMSprop
from stagewise.sampling.sgld import sgld_step_


def running(settings, *gradients):
    found = RunningRMSprop(settings, torch.zeros(len(gradients[0]) if gradients else 2))
    for gradient in gradients:
        found.update(torch.tensor(gradient))
    return found.preconditioner().diagonal


def test_rmsprop_corrects_its_bias_towards_zero():
    settings = RMSprop(alpha=0.9, eps=0.2)
    assert running(settings).tolist() == pytest.approx([5.0, 5.0])
    assert running(settings, *[[3.0, 0.0]] * 3).tolist() == pytest.approx([1 / 3.2, 5.0])


def test_rmsprop_weights_recent_gradients():
    v = (0.5 * 0.5 * 1 + 0.5 * 4) / (1 - 0.25)
    found = running(RMSprop(alpha=0.5, eps=1e-9), [1.0], [2.0])
    assert found.item() == pytest.approx(1 / math.sqrt(v), rel=1e-5)


def test_published_variants_of_rmsprop_are_those_of_their_formulas():
    """devinterp starts v at 0 and does not correct; Hitchcock and Hoogland start it at 1 and do."""
    gradients = [[1.0], [2.0], [0.5]]
    v_zero, v_one = 0.0, 1.0
    for (gradient,) in gradients:
        v_zero, v_one = (0.9 * v + 0.1 * gradient**2 for v in (v_zero, v_one))
    devinterp = running(RMSprop(alpha=0.9, frozen=False, bias_correction=False), *gradients)
    hitchcock = running(RMSprop(alpha=0.9, frozen=False, initial=1), *gradients)
    assert devinterp.item() == pytest.approx(1 / (math.sqrt(v_zero) + 0.1), rel=1e-5)
    assert hitchcock.item() == pytest.approx(1 / (math.sqrt(v_one / (1 - 0.9**3)) + 0.1), rel=1e-5)


@pytest.mark.parametrize("bad", [{"alpha": 1.0}, {"eps": 0.0}, {"initial": -1.0}, {"initial": math.inf}])
def test_bad_rmsprop_is_refused(bad):
    with pytest.raises(InputError, match=r"got .*; expected .*; "):
        RMSprop(**bad)


def test_diagonal_root_squares_to_it():
    p = Diagonal(torch.tensor([[0.25, 4.0], [9.0, 1.0]]))
    x = torch.randn(2, 2)
    torch.testing.assert_close(p.root_times(p.root_times(x)), p.times(x))


def test_adam_moments_are_matched_by_name_and_near_one_for_a_typical_weight():
    names = {"b": torch.zeros(2), "a": torch.zeros(1, 2), "c": torch.zeros(1)}
    moments = {"a": torch.tensor([[4.0, 16.0]]), "b": torch.tensor([1.0, 0.0])}
    found = AdamMoments(eps=0.5).build(names, moments, torch.zeros(5)).diagonal
    scale = math.sqrt(21 / 5)
    want = [scale / (root + 0.5 * scale) for root in (1, 0, 2, 4, 0)]
    assert found.tolist() == pytest.approx(want)
    assert max(found.tolist()) == pytest.approx(2.0)


def test_adam_moments_are_one_before_the_first_step():
    assert AdamMoments().build({"a": torch.zeros(3)}, {}, torch.zeros(3)).diagonal.tolist() == [1, 1, 1]


def test_adam_moments_of_a_real_optimizer_distinguish_steep_from_flat_weights():
    module = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.Adam(module.parameters())
    for _ in range(5):
        optimizer.zero_grad()
        module(torch.tensor([[10.0, 0.1]])).sum().backward()
        optimizer.step()
    moments = {"weight": optimizer.state[module.weight]["exp_avg_sq"]}
    flat = AdamMoments().build({"weight": module.weight}, moments, torch.zeros(2)).diagonal
    assert flat[1] > 5 * flat[0]


def test_bad_adam_moments_are_refused():
    with pytest.raises(InputError, match=r"got eps=0; expected a finite number > 0; 0\.1 is usual"):
        AdamMoments(eps=0)


def stationary_variance(settings, lr, lam=33.0, burnin=400, steps=1500):
    """Returns the variance over 1/lam of chains on exp(-lam w^2 / 2), and the exact value for the frozen P."""
    generator = torch.Generator().manual_seed(0)
    w, anchor, noise = torch.zeros(2000), torch.zeros(2000), torch.empty(2000)
    adapting, total = RunningRMSprop(settings, w), 0.0
    for index in range(burnin + steps):
        gradient = w.clone()
        if index < burnin or not settings.frozen:
            adapting.update(gradient)
        p = adapting.preconditioner()
        sgld_step_(
            w,
            anchor,
            gradient,
            [noise.normal_(generator=generator)],
            lr=lr,
            posterior=LocalPosterior(lam - 3, 3.0),
            preconditioner=p,
        )
        total += w.square().mean().item() * lam / steps if index >= burnin else 0
    return total, (1 / (1 - lr * p.diagonal * lam / 4)).mean().item()


def test_frozen_rmsprop_has_the_exact_variance_and_unfrozen_is_off_by_a_tenth():
    frozen, exact = stationary_variance(RMSprop(eps=0.01), lr=3e-4)
    assert frozen == pytest.approx(exact, rel=0.015)
    never, _ = stationary_variance(RMSprop(eps=0.01, frozen=False), lr=3e-4)
    assert never > exact * 1.1
