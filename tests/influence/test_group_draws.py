import numpy as np
import pytest
import torch
from torch import nn

from stagewise.influence.group_draws import GroupDraws, Reducer
from stagewise.influence.groups import Groups
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.target import Target
from stagewise.sampling.trace import Trace

MASK = np.random.default_rng(0).random((5, 4)) < 0.9
GROUPS = Groups({"a": np.arange(5) < 3, "b": np.random.default_rng(1).random((5, 4)) < 0.7}, MASK)


def trace_of(loss, mask):
    return Trace(
        loss=loss,
        anchor_loss=loss[0, 0],
        mask=mask,
        distance=np.zeros(loss.shape[:2], dtype=np.float32),
        chains=(0, 2),
        dropped={},
        step=7,
    )


def token_losses():
    loss = np.random.default_rng(2).normal(size=(2, 6, 5, 4)).astype(np.float32)
    return np.where(MASK, loss, np.float32(0))


def test_reducing_draw_by_draw_equals_reducing_afterwards():
    loss = token_losses()
    reduce = Reducer(GROUPS)
    rows = np.stack([[reduce(torch.from_numpy(draw)).numpy() for draw in chain] for chain in loss])
    streamed = GroupDraws.from_reduced(7, (0, 2), rows)
    whole = GroupDraws.of(trace_of(loss, MASK), GROUPS)
    for name in ("step", "chains", "samples", "groups"):
        np.testing.assert_array_equal(getattr(streamed, name), getattr(whole, name), err_msg=name)
    np.testing.assert_allclose(streamed.samples, loss.astype(np.float64).sum(axis=3), rtol=1e-14)
    np.testing.assert_allclose(streamed.groups, GROUPS.sums(loss), rtol=1e-14)


def test_one_product_gives_the_sums_of_a_loop_over_groups():
    """To the rounding of float64, with overlapping groups and leading axes."""
    generator = np.random.default_rng(3)
    present = generator.random((7, 33)) < 0.8
    groups = Groups({f"g{row}": generator.random((7, 33)) < 0.5 for row in range(5)}, present)
    loss = torch.from_numpy(np.where(present, generator.normal(10.0, 1.0, size=(2, 3, 7, 33)), 0.0))
    got = Reducer(groups)(loss)
    assert (got.dtype, got.shape) == (torch.float64, (2, 3, 6, 7))
    want = [loss.sum(-1), *((loss * torch.from_numpy(mask)).sum(-1) for mask in groups.masks)]
    torch.testing.assert_close(got, torch.stack(want, dim=-2), rtol=1e-14, atol=1e-12)


def test_reducing_all_chains_at_once_equals_one_by_one():
    loss = torch.from_numpy(token_losses())[:, 0]
    reduce = Reducer(GROUPS)
    assert torch.equal(reduce(loss), torch.stack([reduce(chain) for chain in loss]))


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_reducing_chains_give_the_features_of_their_trace(engine):
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(3, 4)
    batch = (torch.randn(5, 3, generator=generator), torch.randn(5, 4, generator=generator), torch.from_numpy(MASK))

    def tokens(module, batch):
        return (module(batch[0]) - batch[1]).square(), batch[2]

    target = Target(tokens, batch)
    config = SGLDConfig(
        lr=1e-3,
        nbeta=30,
        localization=50,
        num_chains=2,
        num_draws=7,
        batch_size=3,
        engine=engine,
        num_burnin_steps=2,
        num_steps_bw_draws=1,
        drift="plain",
    )
    kept = ChainSampler(module, target, config).run(step=4)
    streamed = ChainSampler(module, target, config, reduce=Reducer(GROUPS)).run(step=4)
    assert kept.loss.ndim == 4
    assert streamed.loss.ndim == 3
    want, got = GroupDraws.of(kept, GROUPS), GroupDraws.of(streamed, GROUPS)
    assert (got.step, got.chains) == (4, (0, 1))
    np.testing.assert_array_equal(got.samples, want.samples)
    np.testing.assert_array_equal(got.groups, want.groups)


def test_losses_without_tokens_are_reduced_to_themselves_and_their_groups():
    groups = Groups({"a": np.array([1, 1, 0], bool), "b": np.array([0, 1, 1], bool)}, np.ones(3, dtype=bool))
    rows = Reducer(groups)(torch.tensor([1.0, 2.0, 4.0]))
    assert rows.tolist() == [[1.0, 2.0, 4.0], [1.0, 2.0, 0.0], [0.0, 2.0, 4.0]]


def test_sums_keep_movements_that_float32_sums_would_lose():
    """2,000 tokens of 5 nats: one moves by 1e-4, below the resolution of float32 at 10,000 nats."""
    groups = Groups({}, np.ones((2, 2000), dtype=bool))
    here = torch.full((2, 2000), 5.0)
    there = here.clone()
    there[0, 3] += 1e-4
    moved = Reducer(groups)(there) - Reducer(groups)(here)
    assert moved[0, 0].item() == pytest.approx(1e-4, rel=1e-2)
    assert moved[0, 1].item() == 0


def test_reduced_draws_have_no_gradients():
    losses = torch.ones(5, 4, requires_grad=True)
    assert not Reducer(GROUPS)(losses).requires_grad
