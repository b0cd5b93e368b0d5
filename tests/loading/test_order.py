import torch

from stagewise.loading.order import SeededBatches, epoch_order


def test_an_order_depends_on_seed_and_epoch_alone():
    order = epoch_order(50, 2, 3)
    assert sorted(order.tolist()) == list(range(50))
    torch.rand(7)
    assert torch.equal(order, epoch_order(50, 2, 3))
    assert not torch.equal(order, epoch_order(50, 2, 4))
    assert not torch.equal(order, epoch_order(50, 3, 3))


def test_batches_cut_the_order_of_their_epoch_and_skip_once():
    batches = SeededBatches(23, 5, seed=1)
    batches.epoch = 2
    order = epoch_order(23, 1, 2).tolist()
    assert list(batches) == [order[start : start + 5] for start in range(0, 20, 5)]
    batches.skip = 3
    assert list(batches) == [order[15:20]]
    assert len(list(batches)) == len(batches) == 4
    assert len(list(SeededBatches(23, 5, seed=1, drop_last=False))) == 5
