"""Indices and a loss that collates them: the same losses as a plain loop over samples of any form."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from stagewise import CollatedLoss, InputError, ProbeConfig, Prober, run_chains
from stagewise.sampling.data import ProbeData
from tests.short_chains import SHORT

SGLD = replace(SHORT, localization=20, num_chains=2, num_draws=4, batch_size=6, num_burnin_steps=1)


class Reader(nn.Module):
    """Reads sequences of unequal length."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(2, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, packed):
        return self.head(self.rnn(packed)[1][0]).squeeze(1)


def ragged(num=24):
    generator = torch.Generator().manual_seed(0)
    lengths = [1 + index % 5 for index in range(num)]
    return [(torch.randn(length, 2, generator=generator), torch.randn((), generator=generator)) for length in lengths]


def collate(samples):
    return pack_sequence([x for x, _ in samples], enforce_sorted=False), torch.stack([y for _, y in samples])


def squared(module, batch):
    return (module(batch[0]) - batch[1]) ** 2


def one_by_one(module, samples):
    return torch.stack([(module(pack_sequence([x])) - y) ** 2 for x, y in samples]).squeeze(1)


def test_losses_are_those_of_a_plain_loop():
    module, samples = Reader(), ragged()
    loss = CollatedLoss(samples, squared, collate)
    index = torch.tensor([20, 3, 7])
    expected = one_by_one(module, [samples[20], samples[3], samples[7]])
    torch.testing.assert_close(loss(module, index), expected)


def test_a_probe_of_indices_has_influence_groups_baselines_and_learning_coefficients():
    module, samples = Reader(), ragged()
    groups = {"short": torch.arange(12) % 5 < 2, "long": torch.arange(12) % 5 >= 2}
    data = ProbeData(torch.arange(12), torch.arange(24), groups)
    prober = Prober(
        module,
        CollatedLoss(samples, squared, collate),
        data,
        sgld=SGLD,
        config=ProbeConfig(gradient_dot=True, gradient_dot_folds=None, chunk_size=5),
    )
    result, trace = prober.probe(module, 0)
    torch.testing.assert_close(torch.from_numpy(trace.anchor_loss), one_by_one(module, samples[:12]).detach())
    assert torch.isfinite(torch.from_numpy(result["group_bif"].values[0])).all()
    assert result["llc"].ndim == 0
    # Gradient dot product by hand, between different samples of the two groups.
    parameters = list(module.parameters())
    gradients = torch.stack(
        [
            torch.cat([item.flatten() for item in torch.autograd.grad(loss, parameters, retain_graph=True)])
            for loss in one_by_one(module, samples[:12])
        ]
    ).double()
    products = gradients[groups["short"]] @ gradients[groups["long"]].T
    assert result["graddot"].values[0, 1] == pytest.approx(products.mean().item(), rel=1e-4)


def test_draws_are_those_of_the_samples_as_a_plain_batch():
    """Where the samples can be stacked, indices and the batch itself give the same chains."""
    x, y = torch.randn(24, 3), torch.randn(24)
    module = nn.Linear(3, 1)

    def loss(module, batch):
        return (module(batch[0]).squeeze(1) - batch[1]) ** 2

    samples = list(zip(x, y, strict=True))
    plain = run_chains(module, loss, observed=(x[:8], y[:8]), sampling=(x, y), config=SGLD)
    indexed = run_chains(
        module, CollatedLoss(samples, loss), observed=torch.arange(8), sampling=torch.arange(24), config=SGLD
    )
    torch.testing.assert_close(torch.from_numpy(indexed.loss), torch.from_numpy(plain.loss))


def test_engine_is_the_sequential_one_by_itself_and_another_is_refused_with_advice():
    from dataclasses import replace

    module, samples = Reader(), ragged()
    arguments = {"observed": torch.arange(6), "sampling": torch.arange(24)}
    loss = CollatedLoss(samples, squared, collate)
    assert run_chains(module, loss, config=replace(SGLD, engine="auto"), **arguments).engine == "sequential"
    with pytest.raises(InputError, match="set engine to sequential"):
        run_chains(module, loss, config=replace(SGLD, engine="batched"), **arguments)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (torch.zeros(3, 2), r"got torch.float32 \[3, 2\].*expected int64 indices"),
        (torch.tensor([1.0]), "expected int64 indices"),
        ([1, 2], "got list"),
        (torch.tensor([3, 24]), "from 3 to 24 for a data set of 24 samples; expected 0 to 23"),
        (torch.tensor([-1]), "expected 0 to 23"),
    ],
)
def test_something_else_than_indices_is_refused(index, words):
    with pytest.raises(InputError, match=words):
        CollatedLoss(ragged(), squared, collate)(Reader(), index)


def test_streams_are_refused():
    with pytest.raises(InputError, match="map-style"):
        CollatedLoss(iter(ragged()), squared)


def test_copies_share_the_data_set():
    loss = CollatedLoss(ragged(), squared)
    assert copy.deepcopy(loss).dataset is loss.dataset


def test_padding_to_each_batch_is_refused_for_token_losses():
    """Draws of one probe would have different shapes."""

    def tokens(module, batch):
        padded, lengths = nn.utils.rnn.pad_packed_sequence(batch[0], batch_first=True)
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        return module.head.weight.sum() * padded.sum(dim=2), mask

    data = ProbeData(torch.arange(20), torch.arange(24))
    loss = CollatedLoss(ragged()[4:] + ragged()[:4], tokens, collate)
    samples = [ragged()[0], *ragged()[:23]]
    samples[19] = (torch.zeros(9, 2), torch.tensor(0.0))
    loss = CollatedLoss(samples, tokens, collate)
    with pytest.raises(InputError, match=r"shape \[20, 9\] and \[10, 5\].*pad to one length"):
        Prober(Reader(), loss, data, sgld=SGLD, config=ProbeConfig())
