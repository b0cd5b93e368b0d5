import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.baselines import TracIn, gradient_dot
from stagewise.influence.groups import Groups
from stagewise.sampling.target import Target

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(10, 3, generator=GENERATOR, dtype=torch.float64)
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
GROUPS = Groups({"train": np.arange(10) < 7, "test": np.arange(10) >= 7}, np.ones(10, dtype=bool))


def squared(module, batch):
    return ((module(batch[0]) - batch[1]) ** 2).sum(1) / 2


def train(rates, every):
    """Plain gradient descent on the training group; TracIn fed every few steps, the module at each checkpoint."""
    module = nn.Linear(3, 1, bias=False).double()
    tracin, checkpoints = TracIn(), [module.weight.detach().clone()]
    for step, rate in enumerate(rates, 1):
        module.zero_grad()
        squared(module, (X[:7], Y[:7])).mean().backward()
        if step % every == 0:
            tracin.add(gradient_dot(module, Target(squared, (X, Y)), GROUPS), lr_sum=sum(rates[step - every : step]))
        with torch.no_grad():
            module.weight -= rate * module.weight.grad
        checkpoints.append(module.weight.detach().clone())
    return tracin, checkpoints


def test_tracin_equals_a_plain_loop_over_checkpoints():
    rates = np.linspace(0.2, 0.05, 12)
    tracin, checkpoints = train(rates, every=1)
    want = np.zeros((10, 10))
    for rate, weight in zip(rates, checkpoints, strict=False):
        rows = ((X @ weight.T - Y) * X).numpy()
        want += rate * rows @ rows.T
    np.testing.assert_allclose(tracin.total[0, 1], want[:7, 7:].mean(), rtol=1e-10)
    np.testing.assert_allclose(tracin.total[1, 1], want[7:, 7:][~np.eye(3, dtype=bool)].mean(), rtol=1e-10)


@pytest.mark.parametrize("every", [1, 5])
def test_training_on_the_group_lowers_the_other_groups_loss_by_tracin(every):
    """Small steps of gradient descent on the mean training loss: TracIn in nats accounts for the whole fall."""
    torch.manual_seed(1)
    tracin, checkpoints = train([2e-3] * 200, every)
    first, last = (((X[7:] @ weight.T - Y[7:]) ** 2).mean() / 2 for weight in (checkpoints[0], checkpoints[-1]))
    assert float(first - last) > 0.2
    assert tracin.total[0, 1] == pytest.approx(float(first - last), rel=0.01)


def test_a_resumed_sum_continues():
    generator = np.random.default_rng(0)
    dots = generator.normal(size=(4, 2, 2))
    straight, resumed = TracIn(), TracIn()
    for dot in dots[:2]:
        straight.add(dot, lr_sum=0.3)
    resumed.load_state_dict(straight.state_dict())
    assert np.array_equal(resumed.total, straight.total)
    for dot in dots[2:]:
        straight.add(dot, lr_sum=0.2)
        resumed.add(dot, lr_sum=0.2)
    assert np.array_equal(resumed.total, straight.total)
    np.testing.assert_allclose(resumed.total, np.tensordot([0.3, 0.3, 0.2, 0.2], dots, axes=1))


def test_groups_without_a_pair_stay_nan_through_the_run_and_a_checkpoint():
    singles = Groups({"a": np.arange(10) == 2, "b": np.arange(10) == 3, "rest": np.arange(10) > 3}, np.ones(10, bool))
    module = nn.Linear(3, 1, bias=False).double()
    dot = gradient_dot(module, Target(squared, (X, Y)), singles)
    tracin, resumed = TracIn(), TracIn()
    tracin.add(dot, lr_sum=0.3, defined=singles.has_pairs)
    resumed.load_state_dict(tracin.state_dict())
    total = resumed.add(dot, lr_sum=0.2, defined=singles.has_pairs)
    np.testing.assert_allclose(total, 0.5 * dot)
    assert np.isnan(total).tolist() == [[True, False, False], [False, True, False], [False] * 3]


@pytest.mark.parametrize(
    ("dot", "defined"),
    [
        ([[np.nan, np.nan], [np.nan, 1.0]], [[False, True], [True, True]]),
        ([[np.nan, np.inf], [1.0, 1.0]], [[False, True], [True, True]]),
        ([[0.0, 1.0], [1.0, 1.0]], [[False, True], [True, True]]),
        ([[np.inf, 1.0], [1.0, 1.0]], [[False, True], [True, True]]),
        (np.eye(2), [True, True, True]),
    ],
)
def test_nan_is_accepted_only_without_a_pair(dot, defined):
    tracin = TracIn()
    with pytest.raises(InputError, match=r"got .*; expected "):
        tracin.add(dot, lr_sum=0.1, defined=defined)
    assert tracin.total is None


def test_a_fresh_sum_survives_a_checkpoint():
    fresh = TracIn()
    fresh.load_state_dict(TracIn().state_dict())
    assert fresh.total is None


def test_the_sum_cannot_be_changed_from_outside():
    tracin = TracIn()
    tracin.add(np.eye(2), lr_sum=1.0)[:] = 7.0
    tracin.total[:] = 7.0
    assert np.array_equal(tracin.total, np.eye(2))


@pytest.mark.parametrize(
    "bad",
    [
        {"dot": np.full((2, 2), np.nan)},
        {"dot": np.eye(3)},
        {"lr_sum": -0.1},
        {"lr_sum": float("inf")},
    ],
)
def test_bad_input_is_refused_and_does_not_change_the_sum(bad):
    tracin = TracIn()
    tracin.add(np.eye(2), lr_sum=1.0)
    with pytest.raises(InputError, match=r"got .*; expected "):
        tracin.add(**{"dot": np.eye(2), "lr_sum": 0.1, **bad})
    assert np.array_equal(tracin.total, np.eye(2))
