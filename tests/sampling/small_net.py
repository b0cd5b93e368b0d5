"""Small module with state beyond a flat vector of weights, its loss and its data, for tests of engines."""

import torch
from torch import nn

X, Y = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))


def squared(module, batch):
    return ((module(batch[0]) - batch[1]) ** 2).sum(1) / 2


class Net(nn.Module):
    """Module with dropout, batch statistics, a buffer and a tied weight: state beyond a flat vector of weights."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.drop = nn.Dropout(0.5)
        self.register_buffer("shift", torch.zeros(4))

    def forward(self, x):
        return self.second(self.drop(torch.tanh(self.norm(self.first(x)) + self.shift)))
