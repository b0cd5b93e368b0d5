"""Many small networks trained at once: one for each subset and seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from lds.sets import Split


@dataclass(frozen=True)
class Training:
    """Full-batch gradient descent with momentum and weight decay."""

    hidden: int = 16
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-2
    steps: int = 300


def network(split: Split, training: Training) -> nn.Sequential:
    """The shape of the network; its weights come from :func:`initial`."""
    return nn.Sequential(
        nn.Linear(split.num_features, training.hidden), nn.Tanh(), nn.Linear(training.hidden, split.num_classes)
    )


def initial(shape: nn.Module, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Weights ``[seed, ...]``: normal, of variance 1 / inputs; biases zero."""
    rows: dict[str, list[Tensor]] = {name: [] for name, _ in shape.named_parameters()}
    for seed in seeds:
        generator = torch.Generator().manual_seed(1000 + seed)
        for name, value in shape.named_parameters():
            drawn = torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5
            rows[name].append(drawn if value.dim() > 1 else torch.zeros_like(value))
    return {name: torch.stack(drawn) for name, drawn in rows.items()}


def half_subsets(num_train: int, number: int, seed: int = 0) -> Tensor:
    """``[subset, num_train / 2]``: indices of random halves."""
    generator = np.random.default_rng([seed, 11])
    return torch.from_numpy(np.stack([generator.permutation(num_train)[: num_train // 2] for _ in range(number)]))


def train(
    shape: nn.Module,
    weights: dict[str, Tensor],
    batch: tuple[Tensor, Tensor],
    training: Training,
    checkpoints: Sequence[int],
) -> dict[int, dict[str, Tensor]]:
    """Weights ``[model, ...]`` after so many steps.

    Args:
        shape: of the network.
        weights: ``[model, ...]`` to start from.
        batch: ``[model, sample, feature]`` and ``[model, sample]``.
        training: how.
        checkpoints: steps to keep.
    """

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(shape, parameters, (x,)), y)

    gradients = vmap(grad(loss))
    weights = {name: value.clone() for name, value in weights.items()}
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    kept = {0: {name: value.clone() for name, value in weights.items()}} if 0 in checkpoints else {}
    for step in range(1, training.steps + 1):
        for name, slope in gradients(weights, *batch).items():
            velocity[name].mul_(training.momentum).add_(slope).add_(weights[name], alpha=training.weight_decay)
            weights[name].sub_(velocity[name], alpha=training.lr)
        if step in checkpoints:
            kept[step] = {name: value.clone() for name, value in weights.items()}
    return kept


def losses(shape: nn.Module, weights: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """``[model, sample]``: cross entropy in nats of many models on one batch."""

    def predict(parameters: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(shape, parameters, (batch[0],)), batch[1], reduction="none")

    with torch.no_grad():
        return vmap(predict)(weights)


@torch.no_grad()
def retrain(
    split: Split, training: Training, subsets: Tensor, seeds: Sequence[int], checkpoints: Sequence[int]
) -> dict[int, Tensor]:
    """Test losses ``[seed, subset, test]`` of networks that saw one subset each, by step."""
    shape = network(split, training)
    x, y = split.train
    batch = (x[subsets], y[subsets])
    rows: dict[int, list[Tensor]] = {step: [] for step in checkpoints}
    for seed in seeds:
        start = {name: value.expand(len(subsets), *value.shape[1:]) for name, value in initial(shape, [seed]).items()}
        for step, weights in train(shape, start, batch, training, checkpoints).items():
            rows[step].append(losses(shape, weights, split.test))
    return {step: torch.stack(row) for step, row in rows.items()}
