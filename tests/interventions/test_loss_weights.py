import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.interventions.loss_reweighting import loss_weights, sample_weights, weighted_loss
from stagewise.interventions.strata import Strata
from stagewise.losses.contract import Losses


def _losses(*shape, keep=1.0):
    mask = torch.rand(shape) < keep
    return Losses(torch.where(mask, torch.rand(shape, dtype=torch.float64), 0.0), mask)


def test_the_mean_weight_of_the_data_is_1():
    rng = np.random.default_rng(0)
    strata = Strata({"a": rng.random(50) < 0.4, "b": rng.random(50) < 0.4})
    weights = sample_weights(strata, {"a": 3.0, "b": 0.5})
    assert weights.shape == (50,)
    assert weights.mean() == pytest.approx(1.0)
    assert len(set(np.round(weights, 9))) == 4


@pytest.mark.parametrize("weights", [{"a": 4.0}, {"a": 4.0, "b": 0.5}, {"b": 0.0}, {}])
def test_token_weights_and_their_mean_agree_with_plain_loops(weights):
    losses = _losses(5, 7, keep=0.8)
    masks = {"a": torch.rand(5, 7) < 0.4, "b": torch.rand(5) < 0.5}
    found = loss_weights(losses, masks, weights)
    top = bottom = 0.0
    for sample in range(5):
        for token in range(7):
            rho = float(losses.mask[sample, token])
            if masks["a"][sample, token]:
                rho *= weights.get("a", 1.0)
            if masks["b"][sample]:
                rho *= weights.get("b", 1.0)
            assert found[sample, token].item() == pytest.approx(rho)
            top += rho * losses.values[sample, token].item()
            bottom += rho
    assert weighted_loss(losses, found).item() == pytest.approx(top / bottom)


def test_weights_of_samples():
    losses = _losses(6)
    mask = torch.arange(6) < 2
    found = loss_weights(losses, {"a": mask}, {"a": 3.0})
    assert found.tolist() == [3.0, 3.0, 1.0, 1.0, 1.0, 1.0]
    assert weighted_loss(losses, found).item() == pytest.approx(np.average(losses.values, weights=found))


def test_weights_of_1_give_the_mean_loss_to_the_last_bit():
    for keep in (1.0, 0.7):
        values = _losses(33, 31, keep=keep)
        losses = Losses(values.values.float(), values.mask)
        rho = loss_weights(losses, {"a": torch.rand(33, 31) < 0.5}, {"a": 1.0})
        assert torch.equal(weighted_loss(losses, rho), losses.mean())


def _gradient(weights):
    torch.manual_seed(1)
    layer = nn.Linear(4, 1).double()
    x = torch.rand(8, 4, dtype=torch.float64)
    values = layer(x).squeeze(1).square()
    rho = loss_weights(Losses(values, torch.ones(8, dtype=torch.bool)), {"a": torch.arange(8) < 3}, weights)
    weighted_loss(Losses(values, torch.ones(8, dtype=torch.bool)), rho).backward()
    return layer.weight.grad, rho, x, layer


def test_the_scale_of_the_weights_does_not_move_the_gradient():
    """Of samples with one and the same gradient the weighted gradient is that gradient, whatever the weights."""
    once, rho, x, layer = _gradient({"a": 4.0})
    by_hand = sum(
        weight * torch.autograd.grad(layer(row).square().sum(), layer.weight)[0] / rho.sum()
        for weight, row in zip(rho, x, strict=True)
    )
    torch.testing.assert_close(once, by_hand)
    same = Losses(torch.full((8,), 0.3), torch.ones(8, dtype=torch.bool))
    assert weighted_loss(same, rho.float()).item() == pytest.approx(0.3)
    assert weighted_loss(same, 17 * rho.float()).item() == pytest.approx(0.3)


def test_a_batch_without_weight_has_no_gradient():
    values = torch.rand(3, requires_grad=True)
    losses = Losses(values, torch.ones(3, dtype=torch.bool))
    loss = weighted_loss(losses, loss_weights(losses, {"a": torch.ones(3, dtype=torch.bool)}, {"a": 0.0}))
    loss.backward()
    assert loss.item() == 0.0
    assert values.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("shape", "mask", "weights", "words"),
    [
        ((4,), torch.ones(4, dtype=torch.bool), {"b": 2.0}, "expected a mask of the batch for each weight"),
        ((4,), torch.ones(3, dtype=torch.bool), {"a": 2.0}, "for group 'a'"),
        ((4,), torch.ones(4), {"a": 2.0}, "mask of torch.float32"),
        ((4,), torch.ones(4, 1, dtype=torch.bool), {"a": 2.0}, r"expected torch.bool \[4\]"),
        ((4, 3), torch.ones(4, 2, dtype=torch.bool), {"a": 2.0}, r"expected torch.bool \[4, 3\]"),
        ((4,), torch.ones(4, dtype=torch.bool), {"a": -2.0}, "0 or more"),
    ],
)
def test_bad_masks_and_weights_are_refused(shape, mask, weights, words):
    with pytest.raises(InputError, match=words):
        loss_weights(_losses(*shape), {"a": mask}, weights)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(InputError, match="expected equal shapes"):
        weighted_loss(_losses(4, 3), torch.ones(4))
