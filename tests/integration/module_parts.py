"""Parts that modules are made of out there: each keeps something where it is easily lost. ``[sample, 6]`` to the same.

``PARTS`` are to train as if nobody looked. ``REFUSED`` cannot be looked at without a trace: by the name in the error.
"""

import copy
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

SIZE = 6


def linear():
    return nn.Linear(SIZE, SIZE)


class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = self.b = linear()

    def forward(self, x):
        return self.b(self.a(x).tanh())


class RepeatedEntry(nn.Module):
    def __init__(self):
        super().__init__()
        block = linear()
        self.layers = nn.ModuleList([block, linear(), block])
        self.head = self.layers[1]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = linear(), linear()
        self.b.weight = self.a.weight
        self.same = self.a.bias

    def forward(self, x):
        return self.b(self.a(x).tanh()) + self.same


class Symmetric(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.scale * (x + x.mT)


class SharedParametrization(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, shared = linear(), linear(), Symmetric()
        parametrize.register_parametrization(self.a, "weight", shared)
        parametrize.register_parametrization(self.b, "weight", shared)

    def forward(self, x):
        with parametrize.cached():
            return self.b(self.a(x).tanh())


class HeldElsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()
        self.kept = {"weights": [self.a.weight], "pair": (self.a.bias, 1)}

    def forward(self, x):
        return F.linear(self.a(x).tanh(), self.kept["weights"][0], self.kept["pair"][0])


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.LSTM(SIZE, SIZE, batch_first=True)
        self.again = self.a
        self.state = None

    def forward(self, x):
        out, self.state = self.again(x[:, None])
        return out[:, 0]


class Counter(nn.Module):
    total_calls = 0

    def __init__(self):
        super().__init__()
        self.a = linear()
        self.calls, self.mean, self.history = 0, 0.0, []
        type(self).total_calls = 0

    def forward(self, x):
        self.calls += 1
        type(self).total_calls += 1
        self.mean = 0.9 * self.mean + 0.1 * float(x.detach().mean())
        self.history.append(self.mean)
        # In training the number counts: one call more or less is another run.
        return self.a(x) * (1 + 0.1 * self.calls + 0.01 * self.total_calls + self.mean if self.training else 1)


class Assigned(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()
        self.last = None

    def forward(self, x):
        before, self.last = self.last, x.detach().mean(0)
        return self.a(x) if before is None or not self.training else self.a(x) + before


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()
        self.total = torch.zeros(SIZE)
        self.views = [self.total[:2], self.total.view(2, 3)]

    def forward(self, x):
        self.total.data.add_(x.detach().mean(0))
        self.views[0].mul_(0.5)
        return self.a(x) + (self.total if self.training else 0)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()
        self.store = {"mean": [], "pair": (torch.zeros(1), [torch.zeros(SIZE)]), "few": deque(maxlen=3)}
        self.seen = {torch.ones(1)}

    def forward(self, x):
        self.store["mean"].append(x.detach().mean())
        self.store["few"].append(x.detach().sum())
        self.store["pair"][1][0] += x.detach().mean(0)
        self.store["pair"][0].mul_(0.5).add_(1)
        self.store["new", len(self.store)] = None
        self.seen.add(x.detach().mean())
        return self.a(x) + (self.store["pair"][1][0] * len(self.store) if self.training else 0)


@dataclass
class Memory:
    steps: int = 0
    states: list = field(default_factory=lambda: [torch.zeros(SIZE)])


class Slotted:
    __slots__ = ("inner", "number")

    def __init__(self):
        self.inner, self.number = Memory(), 0


class Objects(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()
        self.memory, self.slotted = Memory(), Slotted()

    def forward(self, x):
        self.memory.steps += 1
        self.memory.states.append(x.detach().mean(0))
        self.slotted.number += 1
        self.slotted.inner.states[0] += 1
        return self.a(x) + (self.memory.states[-2] * self.slotted.number if self.training else 0)


class LateBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()

    def forward(self, x):
        if not hasattr(self, "offset"):
            self.register_buffer("offset", torch.rand(SIZE))
        return self.a(x) + self.offset


class LateModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()

    def forward(self, x):
        if not hasattr(self, "late"):
            self.late = nn.Linear(x.shape[1], SIZE).requires_grad_(False)
        return self.late(self.a(x))


class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()
        kept, count = [], 0

        def hook(module, inputs, output):
            nonlocal count
            count += 1
            kept.append(output.detach())
            return output * (1 + 0.1 * count) if module.training else None

        self.a.register_forward_hook(hook)
        self.a.register_forward_pre_hook(self._before)
        self.entered = 0

    def _before(self, module, inputs):
        self.entered += 1

    def forward(self, x):
        return self.a(x)


class Generators(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()
        self.generator = torch.Generator().manual_seed(1)
        self.others = [random.Random(1), np.random.default_rng(1), np.random.RandomState(1)]
        self.counts = np.zeros(3)

    def forward(self, x):
        noise = torch.randn(SIZE, generator=self.generator)
        scale = self.others[0].random() + self.others[1].random() + self.others[2].rand()
        self.counts += 1
        return self.a(x) + (0.1 * noise * scale * float(self.counts.sum()) if self.training else 0)


class Average(nn.Module):
    """Holds a moving average of itself where no module sees it, with statistics that are always on."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(linear(), nn.BatchNorm1d(SIZE))
        self._average = [copy.deepcopy(self.a).requires_grad_(False)]

    def forward(self, x):
        for average, own in zip(self._average[0].parameters(), self.a.parameters(), strict=True):
            average.data.mul_(0.9).add_(own.detach(), alpha=0.1)
        self._average[0](x)
        return self.a(x) + (self._average[0](x) if self.training else 0)


class Merging(nn.Module):
    """As low-rank adapters do: eval mode merges."""

    def __init__(self):
        super().__init__()
        self.base = linear().requires_grad_(False)
        self.down, self.up = nn.Linear(SIZE, 2, bias=False), nn.Linear(2, SIZE, bias=False)
        self.merged = False

    def train(self, mode=True):
        if mode == self.merged:
            with torch.no_grad():
                self.base.weight += (-1 if mode else 1) * self.up.weight @ self.down.weight
            self.merged = not mode
        return super().train(mode)

    def forward(self, x):
        return self.base(x) if self.merged else self.base(x) + self.up(self.down(x))


class Clipped(nn.Module):
    """Clips its own weights in each forward pass."""

    def __init__(self):
        super().__init__()
        self.a = linear()

    def forward(self, x):
        with torch.no_grad():
            self.a.weight.clamp_(-0.2, 0.2)
        return self.a(x)


class SparseBag(nn.Module):
    def __init__(self, max_norm=None, frozen=False):
        super().__init__()
        self.bag = nn.EmbeddingBag(16, SIZE, sparse=True, max_norm=max_norm)
        self.words = nn.Embedding(2, SIZE, sparse=True, max_norm=max_norm).requires_grad_(not frozen)

    def forward(self, x):
        ids = (x > 0).long()
        return x + self.bag(ids[:, :3] + 2 * ids[:, 3:]) + self.words(ids[:, 0])


class Grown(nn.Module):
    """In place, and with a graph: what was a constant is part of a computation afterwards."""

    def __init__(self):
        super().__init__()
        self.a = linear()
        self.kept = torch.zeros(SIZE)

    def forward(self, x):
        self.kept = self.kept.detach()
        self.kept += self.a(x).mean(0)
        return self.a(x) + (0.1 * self.kept if self.training else 0)


class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.compile(nn.Sequential(linear(), nn.Tanh()), backend="eager")

    def forward(self, x):
        return self.a(x)


PARTS = {
    "linear": linear,
    "two names": TwoNames,
    "repeated entry": RepeatedEntry,
    "tied": Tied,
    "shared parametrization": SharedParametrization,
    "held elsewhere": HeldElsewhere,
    "recurrent": Recurrent,
    "counter": Counter,
    "assigned": Assigned,
    "in place": InPlace,
    "nested": Nested,
    "objects": Objects,
    "late buffer": LateBuffer,
    "late module": LateModule,
    "hooked": Hooked,
    "generators": Generators,
    "average": Average,
    "merging": Merging,
    "clipped": Clipped,
    "sparse": SparseBag,
    "sparse with a largest norm": lambda: SparseBag(max_norm=0.5),
    "frozen with a largest norm": lambda: SparseBag(max_norm=0.5, frozen=True),
    "grown": Grown,
    "compiled": Compiled,
    "spectral norm": lambda: parametrizations.spectral_norm(linear()),
    "weight norm": lambda: parametrizations.weight_norm(linear()),
    "old spectral norm": lambda: spectral_norm(linear()),
    "old weight norm": lambda: weight_norm(linear()),
    "batch norm": lambda: nn.BatchNorm1d(SIZE),
    "dropout": lambda: nn.Dropout(0.3),
}


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear()
        self.ids = itertools.count()

    def forward(self, x):
        number = next(self.ids)
        return self.a(x) * (1 + 0.1 * number if self.training else 1)


class FrozenWrite(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear().requires_grad_(False)

    def forward(self, x):
        self.a.weight.data.mul_(1.0 + 1e-4 * self.training).clamp_(-0.1, 0.1)
        return self.a(x)


REFUSED = {
    "lazy": (lambda: nn.LazyLinear(SIZE), "0.weight"),
    "lazy statistics": (lambda: nn.Sequential(linear(), nn.LazyBatchNorm1d()), "0.1.weight"),
    "iterator": (Counted, "0.ids"),
    "frozen weight": (FrozenWrite, "0.a.weight"),
}
