"""A loss of weights that the module had before is refused; what only counts or is computed anew is not."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from stagewise.errors import LossContractError
from stagewise.probes.stale import check_stale
from stagewise.sampling.target import Target


class Net(nn.Module):
    """Squares its weight, and may keep that."""

    def __init__(self, keep=None):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 4))
        self.other = nn.Linear(4, 1)
        self.keep = keep
        self.kept = {}
        self.calls = 0

    def squared(self):
        if self.keep == "first":
            self.kept.setdefault("squared", self.weight.square())
            return self.kept["squared"]
        if self.keep == "last":  # one call late
            late = self.kept.get("squared", self.weight.square())
            self.kept["squared"] = self.weight.square()
            return late
        self.kept["squared"] = self.weight.square()
        return self.kept["squared"]

    def forward(self, x):
        self.calls += 1
        return self.other(x * self.squared())[:, 0]


def loss(module, batch):
    return module(batch).square()


BATCH = torch.linspace(-1, 1, 12).view(3, 4)


@pytest.mark.parametrize("keep", ["first", "last"])
def test_a_loss_of_earlier_weights_is_refused_by_the_name_of_what_is_kept(keep):
    module = Net(keep)
    before = [weight.clone() for weight in module.parameters()]
    with pytest.raises(LossContractError, match=r"kept\['squared'\].*compute it anew"):
        check_stale(module, Target(loss, BATCH), BATCH)
    assert module.kept == {}
    assert module.calls == 0
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_what_is_kept_may_stay_at_the_training_weights():
    check_stale(Net("first"), Target(loss, BATCH, selection=["other.*"]), BATCH)


def test_counters_and_values_computed_anew_pass():
    module = Net()
    check_stale(module, Target(loss, BATCH), BATCH)
    assert module.calls == 0


def test_parametrizations_pass():
    check_stale(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 1)), nn.Flatten(0)), Target(loss, BATCH), BATCH)


def test_losses_without_a_value_at_displaced_weights_pass():
    check_stale(Net(), Target(lambda module, batch: loss(module, batch) * float("nan"), BATCH), BATCH)


def test_what_autocast_keeps_of_weights_is_no_state_of_the_module():
    """Casts are kept until autocast is left, as chains do after each forward pass."""
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1), nn.Flatten(0))
    check_stale(module, Target(loss, BATCH, forward_context=autocast), BATCH)
    with autocast(), pytest.raises(LossContractError):
        check_stale(module, Target(loss, BATCH), BATCH)
