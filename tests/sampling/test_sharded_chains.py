"""Chains over sharded weights, compared with chains of whole weights with the same noise."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from stagewise import EKFAC
from stagewise.errors import InputError
from stagewise.influence.baselines.graddot import gradient_dot
from stagewise.influence.groups import Groups
from stagewise.isolation import untouched
from stagewise.isolation.shards import is_sharded, local
from stagewise.losses import chunked_head
from stagewise.sampling.sharding import Sharding, check_shards
from stagewise.sampling.target import Target
from tests.lm_families import tiny_gpt2
from tests.sampling.shards import CASES, OBSERVED, SGLD, Case, Net, draws, layout, row_noise, sample_losses, shard


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Results of two processes."""
    file = tmp_path_factory.mktemp("shards") / "found"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.sampling.shards", str(rank), port, str(file)],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=200)[1] for process in started]
    assert all(process.returncode == 0 for process in started), said
    return [torch.load(f"{file}.{rank}", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """Returns a mesh of this process alone, whose shards are whole."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_draws_of_two_processes_equal_those_of_one_with_the_same_noise(two, name):
    case, module = CASES[name], Net(CASES[name].dtype)
    names = ["first.weight", "first.bias", "last.weight"] if case.sgld.parameters else None
    with row_noise(layout(module, case.masks, names)):
        whole = draws(case, module)
    first, second = (rank[name] for rank in two)
    np.testing.assert_array_equal(first["loss"], second["loss"])
    # In half precision a sum of two shares is rounded differently from a single sum.
    rtol = 3e-2 if case.dtype is torch.bfloat16 else 1e-4
    np.testing.assert_allclose(first["loss"], whole.loss, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(first["distance"], whole.distance, rtol=rtol)
    np.testing.assert_allclose(first["rms"], whole.gradient_rms, rtol=rtol)
    if whole.minibatch_noise is not None:
        np.testing.assert_allclose(first["heat"], whole.minibatch_noise, rtol=10 * rtol, atol=1e-6)
    assert first["same"]
    assert second["same"]


def test_chains_over_shards_of_one_process_equal_those_of_whole_weights(mesh):
    module = shard(Net(), mesh)
    with row_noise(layout(Net())):
        whole = draws(Case(), Net())
    before = [local(value).clone() for value in module.parameters()]
    sharded = draws(Case(), module, Sharding())
    np.testing.assert_allclose(sharded.loss, whole.loss, rtol=1e-5)
    assert np.ptp(whole.loss, axis=1).min() > 1e-3
    assert all(map(torch.equal, before, map(local, module.parameters())))
    assert all(map(is_sharded, module.parameters()))


@pytest.mark.parametrize("where", ["in a layer", "after the pass"])
def test_weights_are_restored_and_train_on_after_a_failing_loss(mesh, where):
    module, twin = shard(Net(), mesh), Net()
    calls = []

    def loss(module, batch):
        calls.append(None)
        fails = len(calls) == 6
        handle = module.last.register_forward_pre_hook(_raise) if fails and where == "in a layer" else None
        try:
            losses = sample_losses(module, batch)
        finally:
            if handle is not None:
                handle.remove()
        if fails:
            raise KeyError("after the pass")
        return losses

    before = [local(value).clone() for value in module.parameters()]
    with pytest.raises(KeyError, match=where):
        draws(Case(loss=loss), module, Sharding())
    assert all(map(torch.equal, before, map(local, module.parameters())))
    assert all(map(is_sharded, module.parameters()))
    for net in (module, twin):
        sample_losses(net, OBSERVED).mean().backward()
    for left, right in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(local(left.grad), right.grad)


def _raise(*_):
    raise KeyError("in a layer")


def test_a_pass_without_gradients_leaves_no_whole_weights_behind(mesh):
    module = Net()
    fully_shard(module, mesh=mesh)
    before = dict(module.named_parameters())
    with torch.no_grad():
        module(OBSERVED[0])
    assert not is_sharded(module.first.weight)  # FSDP2 keeps those of the outermost module
    with untouched(module, checksums=True), torch.no_grad():
        module(OBSERVED[0])
    for name, value in module.named_parameters():
        assert value is before[name]


def test_gradient_dot_products_over_shards_equal_those_of_whole_weights(mesh):
    masks = {"low": torch.arange(9) < 4, "odd": torch.arange(9) % 2 == 1}
    groups = Groups(masks, np.ones((9, 1), dtype=bool))
    for how in ({}, {"num_folds": 3}, {"block_size": 40}):
        whole = gradient_dot(Net(), Target(sample_losses, OBSERVED), groups, **how)
        found = gradient_dot(shard(Net(), mesh), Target(sample_losses, OBSERVED, sharding=Sharding()), groups, **how)
        np.testing.assert_allclose(found, whole, rtol=1e-4)


def test_shards_that_chains_cannot_move_are_refused_by_name(mesh):
    some = Net()
    fully_shard(some.first, mesh=mesh)
    with pytest.raises(InputError, match=r"'middle.weight', a trainable parameter that is not sharded"):
        check_shards(some, 1)
    for parameter in [*some.middle.parameters(), *some.last.parameters()]:
        parameter.requires_grad_(False)
    check_shards(some, 1)
    with pytest.raises(InputError, match=r"'first.weight' placed as \(S\(0\)\) on 1 of 2 processes.*data_parallel"):
        check_shards(some, 2)
    some.first.bias.register_post_accumulate_grad_hook(lambda value: None)
    with pytest.raises(InputError, match=r"hook on the gradient of 'first.bias', as of an optimizer"):
        check_shards(some, 1)
    scaled = shard(Net(), mesh)
    scaled.first.set_gradient_divide_factor(2.0)
    with pytest.raises(InputError, match=r"set_gradient_divide_factor\(2\)"):
        check_shards(scaled, 1)


def test_a_module_without_gradient_synchronization_is_refused(mesh):
    module = shard(Net(), mesh)
    module.set_requires_gradient_sync(False)
    with pytest.raises(InputError, match=r"after set_requires_gradient_sync\(False\)"):
        draws(Case(), module, Sharding())
    module.set_requires_gradient_sync(True)
    draws(Case(), module, Sharding())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"preconditioner": EKFAC()}, "EKFAC and weights in shards"),
        ({"engine": "batched"}, "'batched' and weights in"),
        ({"engine": "compiled"}, "'compiled' and weights in"),
    ],
)
def test_settings_that_need_whole_weights_are_refused_by_name(mesh, changed, words):
    with pytest.raises(InputError, match=words):
        draws(Case(replace(SGLD, **changed)), shard(Net(), mesh), Sharding())


def test_the_head_of_a_sharded_model_is_called_within_the_model(mesh, monkeypatch):
    monkeypatch.setattr(chunked_head, "LEAST_LOGITS", 1)
    model = tiny_gpt2().eval()
    assert chunked_head.plain_head(model, 8) is model.lm_head
    fully_shard(model, mesh=mesh)
    with torch.no_grad():
        model(torch.zeros(1, 4, dtype=torch.int64))
    assert not is_sharded(model.lm_head.weight)  # whole for now, but not in the next pass
    assert chunked_head.plain_head(model, 8) is None
