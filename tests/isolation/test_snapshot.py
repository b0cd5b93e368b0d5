"""A snapshot puts back the identical objects with the same bits, and names what it cannot."""

import itertools
import random
import weakref
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.isolation import restored, untouched
from stagewise.isolation.snapshot import Snapshot
from stagewise.isolation.walk import walk


@dataclass(frozen=True)
class Frozen:
    values: list


class Slotted:
    __slots__ = ("kept", "late")

    def __init__(self):
        self.kept = [torch.zeros(2)]


class Holder(nn.Module):
    shared: dict = {}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.register_buffer("buffer", torch.arange(4.0))
        self.weight = nn.Parameter(torch.ones(2))
        self.number, self.text, self.nothing = 3, "text", None
        self.tensor = torch.arange(4.0)
        self.view = self.tensor[1:3]
        self.wide = torch.ones(1).expand(3)
        self.missing = torch.tensor([float("nan"), -0.0])
        self.whole = torch.tensor([1, 2], dtype=torch.int8)
        self.complex = torch.ones(2, dtype=torch.complex64)
        self.sparse = torch.eye(2).to_sparse()
        self.list, self.queue, self.set = [1, [2]], deque([1, 2], maxlen=2), {1, 2}
        self.plain, self.ordered, self.default = {"a": 1, "b": 2}, OrderedDict(a=1, b=2), defaultdict(list, a=[1])
        self.pair = (torch.zeros(1), {"inner": torch.zeros(1)})
        self.frozen, self.slotted, self.space = Frozen([1]), Slotted(), SimpleNamespace(x=1)
        self.array, self.objects = np.arange(3.0), np.array([None, []], dtype=object)
        self.generator = torch.Generator().manual_seed(0)
        self.numpy, self.legacy, self.python = np.random.default_rng(0), np.random.RandomState(0), random.Random(0)


CHANGES = {
    "buffer in place": lambda m: m.buffer.add_(1),
    "buffer by data": lambda m: m.buffer.data.add_(1),
    "buffer replaced": lambda m: setattr(m, "buffer", torch.zeros(1)),
    "buffer of other memory": lambda m: setattr(m.buffer, "data", torch.zeros(7, dtype=torch.int32)),
    "buffer deleted": lambda m: delattr(m, "buffer"),
    "buffer registered": lambda m: m.register_buffer("later", torch.zeros(1)),
    "buffer part of a graph": lambda m: m.buffer.mul_(m.weight.sum()),
    "parameter registered": lambda m: m.register_parameter("more", nn.Parameter(torch.zeros(1))),
    "parameter replaced": lambda m: setattr(m, "weight", nn.Parameter(torch.zeros(2))),
    "parameter of other memory": lambda m: setattr(m.weight, "data", torch.zeros(3)),
    "parameter frozen": lambda m: m.weight.requires_grad_(False),
    "module added": lambda m: m.add_module("late", nn.Linear(1, 1)),
    "hook added": lambda m: m.register_forward_hook(print),
    "number": lambda m: setattr(m, "number", m.number + 1),
    "text": lambda m: setattr(m, "text", "other"),
    "None": lambda m: setattr(m, "nothing", [torch.zeros(1)]),
    "attribute deleted": lambda m: delattr(m, "number"),
    "tensor in place": lambda m: m.tensor.mul_(2),
    "tensor through its view": lambda m: m.view.mul_(2),
    "tensor through numpy": lambda m: np.add(m.tensor.numpy(), 1, out=m.tensor.numpy()),
    "tensor of other memory": lambda m: m.tensor.set_(torch.ones(9)),
    "tensor transposed in place": lambda m: m.tensor.unsqueeze_(0).t_(),
    "expanded tensor": lambda m: m.wide[:1].add_(1),
    "not a number": lambda m: m.missing.zero_(),
    "integers": lambda m: m.whole.add_(1),
    "complex": lambda m: m.complex.mul_(1j),
    "sparse": lambda m: m.sparse.mul_(2),
    "list grown": lambda m: m.list.append(1),
    "list in a list": lambda m: m.list[1].clear(),
    "queue": lambda m: m.queue.append(9),
    "set": lambda m: m.set.discard(1),
    "dictionary reordered": lambda m: m.plain.update(a=m.plain.pop("a")),
    "ordered dictionary": lambda m: m.ordered.move_to_end("a"),
    "default made": lambda m: m.default["b"].append(1),
    "tensor in a tuple": lambda m: m.pair[0].add_(1),
    "dictionary in a tuple": lambda m: m.pair[1].update(inner=None),
    "frozen dataclass": lambda m: m.frozen.values.append(2),
    "slots": lambda m: (m.slotted.kept[0].add_(1), setattr(m.slotted, "late", 1)),
    "namespace": lambda m: vars(m.space).update(x=2, y=3),
    "array": lambda m: m.array.__iadd__(1),
    "array of objects": lambda m: m.objects.__setitem__(0, 1),
    "generator": lambda m: torch.rand(1, generator=m.generator),
    "numpy generator": lambda m: m.numpy.random(),
    "numpy's older generator": lambda m: m.legacy.rand(),
    "Python's generator": lambda m: m.python.random(),
    "class attribute": lambda m: m.shared.update(a=1),
    "class attribute replaced": lambda m: setattr(type(m), "shared", None),
}


def told(value):
    """A value as text that shows each bit; not the package's way to compare."""
    if isinstance(value, torch.Tensor):
        dense = value.detach().to_dense().contiguous()
        return (
            id(value),
            str(dense.dtype),
            dense.numpy().tobytes(),
            tuple(value.shape),
            value._version,
            value.requires_grad,
        )
    if isinstance(value, dict | OrderedDict):
        return (id(value), [(key, told(held)) for key, held in value.items()])
    if isinstance(value, list | tuple | deque | set):
        return (id(value), [told(held) for held in value])
    if isinstance(value, Slotted):
        return (told(value.kept), hasattr(value, "late"))
    if isinstance(value, Frozen | SimpleNamespace):
        return told(vars(value))
    if isinstance(value, np.ndarray):
        return (id(value), value.tolist())
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return str(value.get_state())
    if isinstance(value, random.Random):
        return value.getstate()
    return (id(value), str(value))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore")
def test_change_is_undone(name):
    module = Holder()
    change = CHANGES[name]
    try:
        before = told(vars(module)), told(Holder.shared)
        with restored(module), torch.no_grad() if "graph" not in name else torch.enable_grad():
            change(module)
            assert (told(vars(module)), told(Holder.shared)) != before
        assert (told(vars(module)), told(Holder.shared)) == before
    finally:
        Holder.shared = {}


def test_all_at_once_and_after_an_exception():
    module = Holder()
    before = told(vars(module))

    def look():
        with untouched(module), torch.no_grad():
            for name, change in CHANGES.items():
                if name not in (
                    "attribute deleted",
                    "buffer deleted",
                    "class attribute replaced",
                    "buffer part of a graph",
                ):
                    change(Holder() if "memory" in name or "replaced" in name else module)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look()
    assert told(vars(module)) == before


def test_saved_buffer_can_still_be_differentiated_through():
    module = Holder()
    x = torch.ones(4, requires_grad=True)
    loss = (x * module.buffer).sum()
    with untouched(module):
        module.buffer.add_(1)
    loss.backward()
    assert torch.equal(x.grad, torch.arange(4.0))


def test_gradients_stay_in_the_middle_of_accumulation():
    module = Holder()
    module.weight.grad = kept = torch.tensor([1.0, 2.0])
    with untouched(module):
        (module.weight * 3).sum().backward()
    assert module.weight.grad is kept
    assert torch.equal(kept, torch.tensor([1.0, 2.0]))


def counting(module):
    module.inner = nn.Module()
    module.inner.ids = itertools.count(5)
    return "inner.ids", lambda: next(module.inner.ids)


def drained(module):
    module.items = [iter([1, 2, 3])]
    return "items[0]", lambda: next(module.items[0])


def generating(module):
    module.items = {"a": (number for number in range(5))}
    return "items['a']", lambda: next(module.items["a"])


def written(module):
    return "weight", lambda: module.weight.data.add_(1)


def swapped_around(module):
    module.weight.data.copy_(torch.tensor([1.0, 2.0]))
    return "weight", lambda: module.weight.data.copy_(torch.tensor([2.0, 1.0]))


def entangled(module):
    return "view", lambda: module.view.mul_(module.weight)


@pytest.mark.parametrize("pattern", [counting, drained, generating, written, swapped_around, entangled])
@pytest.mark.parametrize("fails", [False, True])
def test_what_cannot_be_undone_is_named(pattern, fails):
    module = Holder()
    name, change = pattern(module)

    def look():
        with untouched(module, checksums=True):
            change()
            if fails:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError if fails else InputError) as error:
        look()
    if not fails:
        assert repr(name) in str(error.value)


def test_iterators_that_stay_where_they_are_are_fine():
    module = Holder()
    for pattern in (counting, drained, generating):
        pattern(module)
    with untouched(module, checksums=True):
        module.buffer.add_(1)


def test_write_to_a_parameter_that_autograd_counts_is_seen_without_checksums():
    module = nn.Sequential(nn.Linear(2, 2))

    def look():
        with untouched(module), torch.no_grad():
            module[0].bias.add_(1)

    with pytest.raises(InputError, match=r"'0.bias' was written to"):
        look()


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embedding_with_a_largest_norm_is_as_it_was(kind):
    module = kind(4, 3, max_norm=0.1)
    before, version = module.weight.detach().clone(), module.weight._version
    with untouched(module, checksums=True):
        module(torch.tensor([[0, 1]]))
        assert not torch.equal(module.weight, before)
    assert torch.equal(module.weight, before)
    assert module.weight._version == version


def test_trainers_data_sets_and_optimizers_are_left_alone():
    class Outer(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, 1)

    module = Outer()
    module.trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    module.rows = torch.utils.data.TensorDataset(torch.zeros(3))
    module.optimizer = torch.optim.Adam(module.parameters())
    module.friend = weakref.ref(module.rows)
    seen = {id(place.value) for place in walk(module).places}
    assert not seen & {id(module.trainer), id(module.rows), id(module.optimizer), id(module.trainer.fit_loop)}
    with restored(module):
        module.rows.tensors[0].add_(1)
        module.trainer.should_stop = True
    assert module.trainer.should_stop
    assert module.rows.tensors[0].sum() == 3


def test_cycles_and_depth_end():
    class Node:
        def __init__(self, depth):
            self.me, self.values = self, []
            self.next = Node(depth - 1) if depth else None

    module = nn.Module()
    module.node = Node(50)
    module.node.owner = module
    with restored(module):
        module.node.next.values.append(1)
    assert module.node.next.values == []
    assert len(walk(module).places) < 50


def test_names_are_those_that_one_would_write():
    module = nn.Module()
    module.encoder = nn.Sequential(nn.Linear(1, 1))
    module.encoder.cache = {"a": [torch.zeros(1)]}
    module.encoder.pair = (0, SimpleNamespace(x=torch.zeros(1)))
    module.encoder.register_buffer("late", torch.zeros(1))
    state = walk(module)
    names = {state.name(found) for found in state.tensors}
    expected = {"encoder.cache['a'][0]", "encoder.pair[1].x", "encoder.late", "encoder.0.weight", "encoder.0.bias"}
    assert names == expected


def test_parameters_are_not_copied():
    module = nn.Linear(512, 512)
    snapshot = Snapshot(module)
    kept = sum(copy.numel() for _, copy in snapshot._memory._kept.values())
    assert kept == 0


@pytest.mark.parametrize("lazy", [nn.LazyLinear(2), nn.LazyBatchNorm1d()])
def test_lazy_modules_are_refused_by_name(lazy):
    module = nn.Sequential(nn.Linear(1, 1), lazy)
    with pytest.raises(InputError, match=r"'1\.weight' and .* more without a shape"), untouched(module):
        pass


def test_lazy_module_that_has_seen_a_batch_is_fine():
    module = nn.Sequential(nn.LazyLinear(2))
    module(torch.ones(1, 3))
    with untouched(module):
        module(torch.ones(1, 3))
