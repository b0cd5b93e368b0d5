"""Chains over shards: modules, settings, and runs of two processes.

``python -m tests.sampling.shards RANK PORT FILE`` is one of two processes; the first writes the draws of every case.
"""

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from stagewise.sampling import chains
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.row_noise import RowStreams, Stretch
from stagewise.sampling.sharding import Sharding
from stagewise.sampling.target import Target

SGLD = SGLDConfig(
    lr=1e-3, nbeta=30.0, localization=100.0, num_chains=2, num_draws=4, num_burnin_steps=3, batch_size=5,
    drift="plain", engine="sequential",
)  # fmt: skip


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


OBSERVED = (numbers(9, 4, seed=1), numbers(9, 3, seed=2))
DRIVING = (numbers(20, 4, seed=3), numbers(20, 3, seed=4))


class Net(nn.Module):
    """Layers whose rows do not divide evenly over two processes, and one layer used twice."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.middle, self.last = nn.Linear(4, 7), nn.Linear(7, 7), nn.Linear(7, 3)
        self.to(dtype)

    def forward(self, x):
        x = self.first(x.to(self.first.bias.dtype)).tanh()
        return self.last(self.middle(self.middle(x).tanh()))


def token_losses(module, batch):
    """``[sample, token]``, with a mask that leaves the first sample without a loss."""
    losses = (module(batch[0]).float() - batch[1]).square()
    return losses, (batch[1] < 0.8) & (batch[0] != OBSERVED[0][0]).any(dim=1, keepdim=True)


def sample_losses(module, batch):
    return (module(batch[0]).float() - batch[1]).square().sum(dim=1)


MASKS = {"first.weight": numbers(7, 4, seed=5) > 0.3, "last.bias": torch.tensor([False, False, True])}


@dataclass(frozen=True)
class Case:
    sgld: SGLDConfig = SGLD
    loss: object = sample_losses
    masks: dict | None = None
    chunk_size: int | None = None
    sampling: object = field(default_factory=lambda: DRIVING)
    dtype: torch.dtype = torch.float32
    recomputes: bool = False


CASES = {
    "plain": Case(),
    "control variates": Case(replace(SGLD, drift="control_variate", batch_size=7), chunk_size=4),
    "tilted": Case(replace(SGLD, drift="tilted", weight_decay=0.1)),
    "rmsprop": Case(replace(SGLD, preconditioner=RMSprop())),
    "adam": Case(replace(SGLD, preconditioner=AdamMoments(), integrator="euler", common_noise=False)),
    "tokens": Case(loss=token_losses),
    # A process without a sample of its own.
    "single samples": Case(replace(SGLD, batch_size=1), chunk_size=1),
    "whole set": Case(replace(SGLD, batch_size=32)),
    "masks": Case(masks=MASKS),
    "some": Case(replace(SGLD, parameters=["first.*", "last.weight"], start="anchor")),
    "half": Case(dtype=torch.bfloat16),
    "double": Case(dtype=torch.float64),
    "recomputed": Case(recomputes=True),
}


def moments(module):
    return {name: numbers(*value.shape, seed=7).square() for name, value in module.named_parameters()}


def shard(module, mesh, *, recomputes=False):
    if recomputes:
        module.first, module.middle = checkpoint_wrapper(module.first), checkpoint_wrapper(module.middle)
    for part in (module.first, module.middle, module.last, module):
        fully_shard(part, mesh=mesh)
    return module


def layout(module, masks=None, names=None):
    """Rows of the whole parameters."""
    found = []
    for number, (name, value) in enumerate(module.named_parameters()):
        if name in (masks or names or [name]):
            index = masks[name].reshape(-1).nonzero().flatten() if masks else None
            found.append(Stretch(number, len(value), value[:1].numel(), 0, len(value), index))
    return found


@contextmanager
def row_noise(rows):
    """Context in which chains of whole weights have the noise of sharded ones."""

    def streams(config, chain, step, like, size, choices):
        return RowStreams(config, chain, step, like, size, choices, layout=rows)

    with mock.patch.object(chains, "Streams", streams):
        yield


def draws(case, module, sharding=None, second_moments=None):
    target = Target(case.loss, OBSERVED, case.sampling, case.masks, case.chunk_size, sharding=sharding)
    return ChainSampler(module, target, case.sgld).run(3, second_moments or moments(module))


def main(rank, port, file):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))

    def exchange(mine):
        found = [torch.empty_like(mine) for _ in range(2)]
        dist.all_gather(found, mine.contiguous())
        return found

    found = {}
    for name, case in CASES.items():
        whole = moments(Net())
        module = shard(Net(case.dtype), mesh, recomputes=case.recomputes)
        spread = {key: distribute_tensor(value, mesh, [Shard(0)]) for key, value in whole.items()}
        before = [value.to_local().clone() for value in module.parameters()]
        trace = draws(case, module, Sharding(int(rank), 2, dist.barrier, exchange), spread)
        same = all(
            torch.equal(value.to_local().view(torch.uint8), kept.view(torch.uint8))
            for value, kept in zip(module.parameters(), before, strict=True)
        )
        found[name] = {
            "loss": trace.loss,
            "distance": trace.distance,
            "rms": trace.gradient_rms,
            "heat": trace.minibatch_noise,
            "same": same,
        }
    torch.save(found, f"{file}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
