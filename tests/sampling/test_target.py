"""Target of a measurement: its sets, weights and chunks."""

import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.target import Target

X = torch.arange(12.0).reshape(6, 2)
SGLD = SGLDConfig(lr=1e-3, localization=10.0)


def losses(module, x):
    return module(x)[:, 0]


def test_the_observed_set_drives_chains_without_a_sampling_set():
    assert Target(losses, X).driving is X
    assert Target(losses, X[:2], X).driving is X


def test_chunks_are_the_observed_set_in_order():
    parts = Target(losses, X, chunk_size=4).observed_chunks()
    assert [len(part) for part in parts] == [4, 2]
    assert torch.equal(torch.cat(parts), X)
    for bad in (0, -1):
        with pytest.raises(InputError, match=r"got chunk_size.*; expected an integer >= 1"):
            Target(losses, X, chunk_size=bad)


def test_losses_are_evaluated_within_the_forward_context():
    module = nn.Linear(2, 1)
    half = Target(losses, X, forward_context=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    full = Target(losses, X).evaluate(module, X).values
    assert torch.equal(full, module(X)[:, 0])
    assert not torch.equal(half.evaluate(module, X).values.float(), full)


def test_the_target_selects_the_moving_weights_or_else_the_settings_do():
    named = SGLDConfig(lr=1e-3, localization=10.0, parameters=["weight"])
    masks = {"weight": torch.ones(1, 2, dtype=torch.bool)}
    assert Target(losses, X).moved_by(SGLD).selection is None
    assert Target(losses, X).moved_by(named).selection == ["weight"]
    assert Target(losses, X, selection=masks).moved_by(SGLD).selection is masks
    assert Target(losses, X, selection=["weight"]).moved_by(named).selection == ["weight"]
    for other, words in ((masks, "got masks together with parameters"), (["bias"], r"moves \['bias'\] and a sampler")):
        with pytest.raises(InputError, match=words):
            Target(losses, X, selection=other).moved_by(named)
