import pytest
import torch

from stagewise.errors import InputError
from stagewise.interventions.loss_reweighting import LossReweighting


@pytest.mark.parametrize("shape", [(6,), (6, 9)])
def test_with_weights_of_1_it_is_the_mean_to_the_last_bit(shape):
    losses = torch.rand(shape, requires_grad=True)
    found = LossReweighting({"a": 1.0})(losses, {"a": torch.arange(6) < 2})
    assert found.item() == losses.mean().item()
    (gradient,) = torch.autograd.grad(found, losses)
    assert torch.equal(gradient, torch.autograd.grad(losses.mean(), losses)[0])


def test_it_is_the_weighted_mean_of_a_plain_loop():
    losses, kept = torch.rand(5, 4, dtype=torch.float64), torch.rand(5, 4) < 0.7
    masks = {"a": torch.arange(5) < 2, "b": torch.rand(5, 4) < 0.5}
    weigh = LossReweighting({"a": 3.0, "b": 0.5})
    top = bottom = 0.0
    for sample in range(5):
        for token in range(4):
            rho = (
                (3.0 if sample < 2 else 1.0) * (0.5 if masks["b"][sample, token] else 1.0) * kept[sample, token].item()
            )
            top += rho * losses[sample, token].item()
            bottom += rho
    assert weigh((losses, kept), masks).item() == pytest.approx(top / bottom, rel=1e-12)
    assert weigh.calls == 1


def test_losses_that_are_masked_may_be_anything():
    losses, kept = torch.tensor([1.0, float("nan")]), torch.tensor([True, False])
    assert LossReweighting({"a": 2.0})((losses, kept), {"a": kept}).item() == 1.0


def test_a_missing_mask_is_refused_also_with_weight_1():
    with pytest.raises(InputError, match="weight for group 'a' and masks for no group"):
        LossReweighting({"a": 1.0})(torch.rand(3), {})
