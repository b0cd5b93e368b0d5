"""Models whose learning coefficients are known, and chains on them."""

import numpy as np
import torch
from torch import nn

from stagewise.influence.llc import learning_coefficients
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig


class Power(nn.Module):
    """L = sum |w|^power / 2 in so many dimensions, at its minimum."""

    def __init__(self, dimensions, power):
        super().__init__()
        self.power = power
        self.w = nn.Parameter(torch.zeros(dimensions, dtype=torch.float64))


def power_loss(module, batch):
    return (module.w**module.power).sum() / 2 + 0 * batch.sum(dim=1)


class DeepLinear(nn.Module):
    """y = B A x, at a true parameter that is as singular as there is: rank ``rank`` of ``hidden``.

    With inputs of unit covariance the mean loss is |B A - B0 A0|^2 / 2.
    """

    def __init__(self, inputs, hidden, outputs, rank):
        super().__init__()
        a, b = torch.zeros(hidden, inputs, dtype=torch.float64), torch.zeros(outputs, hidden, dtype=torch.float64)
        a[:rank, :rank] = torch.eye(rank)
        b[:rank, :rank] = torch.eye(rank)
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.register_buffer("target", b @ a)


def deep_linear_loss(module, batch):
    return (module.b @ module.a - module.target).square().sum() / 2 + 0 * batch.sum(dim=1)


def reduced_rank_coefficient(inputs, hidden, outputs, rank):
    """Learning coefficient and its multiplicity of reduced rank regression.

    Source: Aoyagi and Watanabe 2005, Stochastic complexities of reduced rank regression in Bayesian estimation, Neural
    Networks 18, main theorem.
    """
    m, h, n, r = inputs, hidden, outputs, rank
    if n + r <= m + h and m + r <= n + h and h + r <= m + n:
        whole = -((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n
        odd = (m + h + n + r) % 2
        return (whole + odd) / 8, 1 + odd
    if m + h < n + r:
        return (h * m - h * r + n * r) / 2, 1
    if n + h < m + r:
        return (h * n - h * r + m * r) / 2, 1
    return m * n / 2, 1


def sampled(module, loss_fn, *, repetitions, chains, **settings):
    """Coefficients of so many repetitions, each of its own chains: value, error, share ``[repetition]``."""
    batch = torch.zeros(2, 1, dtype=torch.float64)
    config = SGLDConfig(num_chains=repetitions * chains, batch_size=2, engine="batched", **settings)
    trace = run_chains(module, loss_fn, observed=batch, sampling=batch, config=config)
    assert not trace.dropped
    losses = trace.mean_loss().reshape(repetitions, chains, -1, 1)
    anchor = np.array([trace.mean_anchor_loss()])
    found = [learning_coefficients(loss, anchor, nbeta=config.nbeta) for loss in losses]
    return tuple(np.array([getattr(item, name)[0] for item in found]) for name in ("value", "error", "localized_share"))
