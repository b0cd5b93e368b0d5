import pytest
import torch
from torch import nn


@pytest.fixture
def case():
    """A perceptron of three inputs, and ten samples of a regression."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return module, (torch.randn(10, 3), torch.randn(10, 1))
