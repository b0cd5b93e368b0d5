"""Exchange between processes that evaluate a module together."""

from functools import partial

import pytest
import torch

from stagewise.losses.contract import Losses
from stagewise.sampling.sharding import Sharding


def of_all(ranks, call):
    """Results of ``call(sharding)`` on each rank: they first tell what they send, then get what all have sent."""
    sent, meetings = [], []

    def tell(mine):
        sent.append(mine)
        return [mine] * ranks

    for rank in range(ranks):
        call(Sharding(rank, ranks, partial(meetings.append, rank), tell))
    assert meetings == list(range(ranks))  # before each exchange
    return [call(Sharding(rank, ranks, exchange=lambda _: sent)) for rank in range(ranks)]


@pytest.mark.parametrize("size", [1, 2, 5, 6])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_losses_of_parts_are_joined_in_the_order_of_samples(ranks, size):
    values, mask = torch.arange(size * 4.0).view(size, 4), torch.arange(size * 4).view(size, 4) % 3 != 0

    def call(sharding):
        (mine, held), counts = sharding.part((values, mask))
        assert counts == (sharding.rank < size)
        assert len(mine) >= 1
        return sharding.joined(Losses(mine, held, (2, 2)), size)

    for found in of_all(ranks, call):
        assert torch.equal(found.values, values)
        assert torch.equal(found.mask, mask)
        assert found.axes == (2, 2)


def test_norms_and_sums_are_global_on_every_process():
    vectors = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    parts = vectors.split([4, 0, 6], dim=1)
    for norm in of_all(3, lambda sharding: sharding.norms(parts[sharding.rank])):
        torch.testing.assert_close(norm, vectors.norm(dim=1))
    for total in of_all(3, lambda sharding: sharding.total(parts[sharding.rank].sum(dim=1))):
        torch.testing.assert_close(total, vectors.double().sum(dim=1), rtol=1e-6, atol=1e-6)
