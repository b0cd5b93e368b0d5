"""Losses of a sample that depend on what is evaluated beside it are refused before anything is sampled."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stagewise import LossContractError, ProbeConfig, Prober, SGLDConfig
from stagewise.losses.contract import evaluate
from stagewise.probes.chunking import check_chunking
from stagewise.sampling.data import ProbeData

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
SGLD = SGLDConfig(lr=1e-3, nbeta=10, localization=20, num_chains=2, num_draws=2, batch_size=4, engine="sequential")


def contrastive(module, batch):
    z = F.normalize(module(batch), dim=1)
    return F.cross_entropy(z @ z.T / 0.1, torch.arange(len(batch)), reduction="none")


def batch_norm(module, batch):
    return F.batch_norm(module(batch)[:, None], None, None, training=True)[:, 0].exp().sum(dim=1)


def divided(module, batch):
    return module(batch).square().sum(dim=1) / len(batch)


def alone(module, batch):
    return module(batch).square().sum(dim=1)


def prober(loss_fn, chunk_size=None, num=12, module=None):
    config = ProbeConfig(chunk_size=chunk_size)
    module = nn.Linear(3, 4) if module is None else module
    return Prober(module, loss_fn, ProbeData(X[:num].to(module.weight.dtype)), sgld=SGLD, config=config)


@pytest.mark.parametrize("loss_fn", [contrastive, batch_norm, divided])
@pytest.mark.parametrize("chunk_size", [None, 4, 2])
def test_losses_that_depend_on_the_batch_are_refused(loss_fn, chunk_size):
    with pytest.raises(LossContractError, match=r"depend on the samples beside them: sample \d+ has .* nats") as it:
        prober(loss_fn, chunk_size)
    assert "contrastive" in str(it.value)


def test_the_words_hold_the_losses_of_a_plain_loop():
    module = nn.Linear(3, 4)
    whole, half = divided(module, X), divided(module, X[:6])
    sample = int(((whole[:6] - half).abs() / (1 + whole[:6].abs())).argmax())
    with pytest.raises(LossContractError) as it:
        prober(divided, module=module)
    assert f"sample {sample} has {whole[sample]:.4g} nats among 12 samples and {half[sample]:.4g} among 6" in str(
        it.value
    )


@pytest.mark.parametrize("chunk_size", [None, 5, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_losses_of_each_sample_alone_pass(chunk_size, dtype):
    prober(alone, chunk_size, module=nn.Linear(3, 4).to(dtype))


def test_single_chunk_of_one_sample_is_held_against_two():
    with pytest.raises(LossContractError, match=r"among 1 samples and .* among 2"):
        prober(divided, 1)


def test_one_observed_sample_has_nothing_beside_it():
    module = nn.Linear(3, 4)
    check_chunking(divided, module, X[:1], evaluate(divided, module, X[:1]))
