"""Noise by rows of whole parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stagewise.sampling import row_noise
from stagewise.sampling.row_noise import RowStreams, Stretch
from tests.sampling.shards import SGLD

PARAMETERS = [(0, 7, 4), (2, 3, 5), (5, 1, 6)]
"""Number, rows and width of each."""


def part(rank, ranks):
    """Returns the stretches of one process, as divided by FSDP2, and the places of their entries in the whole."""
    found, places, start = [], [], 0
    for number, rows, width in PARAMETERS:
        held = list(torch.arange(rows).chunk(ranks)) + [torch.empty(0, dtype=torch.int64)] * ranks
        count, first = len(held[rank]), int(held[rank][0]) if len(held[rank]) else rows
        found.append(Stretch(number, rows, width, first, count))
        places.append(torch.arange(count * width) + start + first * width)
        start += rows * width
    return found, torch.cat(places)


def noises(layout, *, config=SGLD, step=0, count=4):
    size = sum(stretch.count * stretch.width for stretch in layout)
    streams = RowStreams(config, [0, 2], step, torch.zeros(size), 20, layout=layout)
    return [streams.noise().clone() for _ in range(count)]


@pytest.mark.parametrize("block", [1, 8, 2**18])
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_parts_for_any_number_of_processes_combine_to_the_whole_noise(monkeypatch, ranks, block):
    monkeypatch.setattr(row_noise, "_BLOCK_NUMBERS", block)
    whole = noises(part(0, 1)[0])
    seen = 0
    for rank in range(ranks):
        layout, places = part(rank, ranks)
        seen += len(places)
        for mine, every in zip(noises(layout), whole, strict=True):
            assert torch.equal(mine, every[:, places])
    assert seen == whole[0].shape[1]


def test_masked_entries_have_the_same_noise_as_without_a_mask():
    (whole,) = noises([Stretch(1, 4, 3, 0, 4)], count=1)
    index = torch.tensor([0, 2, 3])
    streams = RowStreams(SGLD, [0, 2], 0, torch.zeros(3), 20, layout=[Stretch(1, 4, 3, 2, 2, index)])
    assert torch.equal(streams.noise(), whole[:, 6 + index])


def test_noise_is_standard_normal_and_independent_over_chains_draws_and_parameters():
    layout = [Stretch(0, 200, 50, 0, 200), Stretch(1, 200, 50, 0, 200)]
    rows = torch.cat([noise.view(4, -1) for noise in noises(layout, count=2)]).double()
    error = 1 / rows.shape[1] ** 0.5
    assert rows.mean(dim=1).abs().max() < 4 * error
    assert (rows.square().mean(dim=1) - 1).abs().max() < 4 * 2**0.5 * error
    between = np.corrcoef(rows.numpy()) - np.eye(len(rows))
    assert np.abs(between).max() < 4.5 * error


def test_the_training_step_changes_noise_that_is_not_common():
    layout = part(0, 1)[0]
    common = [noises(layout, step=step, count=1)[0] for step in (0, 5)]
    assert torch.equal(*common)
    own = [noises(layout, config=replace(SGLD, common_noise=False), step=step, count=1)[0] for step in (0, 5)]
    assert not torch.isclose(own[0], own[1]).any()
    assert not torch.isclose(own[0], common[0]).any()


def test_noise_of_a_step_is_reused_in_the_next():
    layout = part(0, 1)[0]
    streams = RowStreams(SGLD, [0], 0, torch.zeros(49), 20, layout=layout)
    expected = [noise[:1] for noise in noises(layout, count=4)]
    for index in range(3):
        last, now = streams.two_noises()
        assert torch.equal(last, expected[index])
        assert torch.equal(now, expected[index + 1])
