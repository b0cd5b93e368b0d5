"""Replaced embedding operations have torch's values and gradients, and second derivatives."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from stagewise.sampling.dense_embeddings import DenseEmbeddings

ROWS = torch.tensor([[0, 3, 3], [1, 2, 2], [3, 3, 3]])


def weight():
    return torch.randn(4, 2, dtype=torch.float64, requires_grad=True)


def both(weight, call):
    """Returns value and gradient, by torch and by the replaced operations."""
    found = []
    for inside in (False, True):
        own = weight.detach().clone().requires_grad_()
        if inside:
            with DenseEmbeddings():
                value = call(own)
        else:
            value = call(own)
        (slope,) = torch.autograd.grad(value.square().sum(), own)
        found.append((value, slope.to_dense() if slope.is_sparse else slope, slope.is_sparse))
    assert not found[1][2]
    torch.testing.assert_close(found[0][:2], found[1][:2])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_bags(mode, padding, flat, last):
    more = {}
    ids = ROWS
    if flat:
        ids = ROWS.flatten()
        # An empty bag in the middle.
        more = {"offsets": torch.tensor([0, 2, 2, 5, *([9] if last else [])]), "include_last_offset": last}
    both(weight(), lambda w: F.embedding_bag(ids, w, mode=mode, padding_idx=padding, sparse=mode != "max", **more))


def test_bags_with_weights_and_frequencies():
    scale = torch.rand(3, 3, dtype=torch.float64)
    both(weight(), lambda w: F.embedding_bag(ROWS, w, mode="sum", per_sample_weights=scale))
    both(weight(), lambda w: F.embedding_bag(ROWS, w, mode="sum", scale_grad_by_freq=True))


@pytest.mark.parametrize(("max_norm", "sparse"), itertools.product([None, 0.5], [False, True]))
def test_embeddings(max_norm, sparse):
    both(weight(), lambda w: F.embedding(ROWS, w, padding_idx=1, max_norm=max_norm, sparse=sparse))
    both(weight(), lambda w: F.embedding_bag(ROWS, w, max_norm=max_norm, sparse=sparse))


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_second_derivatives(mode):
    def loss(w):
        with DenseEmbeddings():
            return F.embedding_bag(ROWS, w, mode=mode, sparse=True).tanh() + F.embedding(ROWS[:, 0], w, sparse=True)

    assert torch.autograd.gradgradcheck(loss, weight())
