import random

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.isolation import untouched, with_weights


def snapshot(module):
    return (
        {name: value.clone() for name, value in module.state_dict().items()},
        [child.training for child in module.modules()],
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        random.getstate(),
    )


def same(before, after):
    weights = all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    return (
        weights
        and before[1] == after[1]
        and torch.equal(before[2], after[2])
        and np.array_equal(before[3], after[3])
        and before[4] == after[4]
    )


@pytest.fixture
def module():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    net[1].eval()  # a part that the user froze in eval mode
    return net


def disturb(module):
    module.train()
    module(torch.randn(8, 3))
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)


def test_flags_buffers_and_rng_are_as_they_were(module):
    before = snapshot(module)
    with untouched(module):
        assert not any(child.training for child in module.modules())
        disturb(module)
    assert same(before, snapshot(module))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_also_after_an_exception(module, error):
    before = snapshot(module)

    def look():
        with untouched(module):
            disturb(module)
            raise error

    with pytest.raises(error):
        look()
    assert same(before, snapshot(module))


def test_buffer_objects_are_the_same_ones(module):
    buffers = {name: id(buffer) for name, buffer in module.named_buffers()}
    with untouched(module):
        module[1].running_mean = torch.ones(4)
    assert buffers == {name: id(buffer) for name, buffer in module.named_buffers()}


class Merging(nn.Module):
    """As LoRA layers do: leaving train mode changes the weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.merged = False

    def train(self, mode=True):
        if not mode and not self.merged:
            self.weight.data += 1
            self.merged = True
        return super().train(mode)


def test_overridden_train_is_not_called():
    module = nn.Sequential(Merging())
    with untouched(module):
        assert not module[0].training
    assert module[0].training
    assert not module[0].merged
    assert module[0].weight.item() == 0


def test_shared_buffers_stay_shared_inside():
    module = nn.Module()
    module.a, module.b = nn.Module(), nn.Module()
    shared = torch.zeros(2)
    module.a.register_buffer("x", shared)
    module.b.register_buffer("x", shared)
    with untouched(module):
        module.a.x += 1
        assert module.b.x is module.a.x
    assert torch.equal(shared, torch.zeros(2))


def test_with_weights_reaches_any_method_and_restores():
    module = nn.Linear(2, 1)
    own = module.weight
    other = torch.zeros(1, 2)
    result = with_weights(module, {"weight": other}, lambda: module(torch.ones(1, 2)))
    assert torch.equal(result, module.bias.view(1, 1))
    assert module.weight is own


def test_with_weights_keeps_tied_weights_tied():
    module = nn.Module()
    module.a, module.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    module.b.weight = module.a.weight
    names = dict(module.named_parameters())
    assert list(names) == ["a.weight"]
    seen = with_weights(module, {"a.weight": torch.zeros(2, 2)}, lambda: module.b.weight.clone())
    assert torch.equal(seen, torch.zeros(2, 2))


def test_hooks_of_real_parameters_do_not_fire():
    module = nn.Linear(2, 1)
    fired = []
    module.weight.register_hook(lambda grad: fired.append(grad))
    leaf = module.weight.detach().clone().requires_grad_()
    with_weights(module, {"weight": leaf}, lambda: torch.autograd.grad(module(torch.ones(1, 2)).sum(), [leaf]))
    assert not fired
    assert module.weight.grad is None


def test_lstm_sees_the_other_weights():
    module = nn.LSTM(2, 3, batch_first=True)
    zeros = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
    out = with_weights(module, zeros, lambda: module(torch.ones(1, 4, 2))[0])
    assert torch.equal(out, torch.zeros(1, 4, 3))
    assert module(torch.ones(1, 4, 2))[0].abs().sum() > 0
