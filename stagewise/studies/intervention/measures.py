"""Measures of the trained model of a cell, on held-out sequences."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from stagewise.batches import num_samples, take
from stagewise.lm.ablation import head_ablated
from stagewise.losses.contract import evaluate, resolve_loss
from stagewise.losses.language_models import causal_lm_name
from stagewise.sampling.data import ProbeData
from stagewise.studies.intervention.outcomes import Ablation

_BATCH = 64
"""Sequences in one forward pass."""


def group_losses(module: LightningModule, data: ProbeData) -> dict[str, float]:
    """Returns the mean loss of each group of the observed sequences, nats per token.

    Args:
        module: in eval mode.
        data: its ``observed`` part is used, with its groups ``[sample, token]``.
    """
    loss_fn = resolve_loss(module)
    sums = dict.fromkeys(data.groups, 0.0)
    counts = dict.fromkeys(data.groups, 0)
    with torch.no_grad():
        for start in range(0, num_samples(data.observed), _BATCH):
            rows = slice(start, start + _BATCH)
            losses = evaluate(loss_fn, module, take(data.observed, rows))
            for name, mask in data.groups.items():
                chosen = losses.mask & mask[rows]
                sums[name] += float(losses.values[chosen].double().sum())
                counts[name] += int(chosen.sum())
    return {name: sums[name] / counts[name] for name in sums}


def ablate_best_head(
    module: LightningModule, data: ProbeData, prefix_matching: Tensor, *, group: str, loss: float
) -> Ablation:
    """Sets the output of the best induction head to zero, and measures how far the loss of a group rises.

    Args:
        module: in eval mode; restored.
        data: as for :func:`group_losses`.
        prefix_matching: ``[layer, head]``, scores that determine the best head.
        group: group whose loss is measured.
        loss: of the group with the head, nats per token.
    """
    layer, head = divmod(int(prefix_matching.argmax()), prefix_matching.shape[1])
    name = causal_lm_name(module)
    assert name is not None
    model: Any = module.get_submodule(name)
    with head_ablated(model, layer, head):
        without = group_losses(module, data)[group]
    return Ablation(layer, head, loss, without)
