"""The target of the probes holds the sets where the module is, in chunks."""

import torch
from torch import nn

from stagewise.probes.config import ProbeConfig
from stagewise.probes.target import target_of
from stagewise.sampling.data import ProbeData


def test_sets_go_to_the_device_of_the_module_and_are_read_in_chunks():
    module = nn.Linear(3, 1, device="meta")
    data = ProbeData((torch.ones(4, 3), torch.zeros(4)), (torch.ones(6, 3), torch.zeros(6)), {})

    def loss(module, batch):
        return (module(batch[0])[:, 0] - batch[1]) ** 2

    target = target_of(module, loss, data, ProbeConfig(chunk_size=2))
    tensors = (*target.observed, *target.driving)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert [len(tensor) for tensor in tensors] == [4, 4, 6, 6]
    assert (target.chunk_size, target.loss_fn) == (2, loss)
