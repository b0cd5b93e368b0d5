"""Retraining with one item's weight changed: permanently, for some steps, or inside a window."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stagewise.errors import InputError
from stagewise.toy.descent import Weights, descend, gradient, item_losses

Array = NDArray[np.float64]


def _one_changed(items: int, weight: float, dtype: torch.dtype) -> Tensor:
    """Returns ``[item, item]``: row i has the weight for item i, and 1 for the others."""
    return torch.ones(items, items, dtype=dtype) + (weight - 1) * torch.eye(items, dtype=dtype)


def _effect(changed: Tensor, base: Tensor, weight: float) -> Array:
    """Returns the change of loss per unit of weight; with weight 0, loss with the item minus loss without it."""
    return ((changed - base) / (weight - 1)).numpy()


def _check_weight(weight: float) -> None:
    if weight == 1 or weight < 0:
        raise InputError(f"got weight {weight}; expected 0 or more and not 1, e.g. 0 to drop an item, 2 to double it")


def retraining_effect(
    start: Weights, targets: Tensor, *, lr: float, steps: Sequence[int], weight: float = 0.0
) -> Array:
    """Retrains with each item's weight changed from the start, all items at once.

    The mean keeps its factor 1/n, so that dropping an item does not change the steps of the others.

    Args:
        start: initial weights.
        targets: ``[property, item]``.
        lr: learning rate.
        steps: steps at which to read the losses.
        weight: of the changed item; 0 drops it (leave-one-out), .99 is nearly the derivative.

    Returns:
        ``[step, item, item_j]``: (l_j at the changed weight - l_j) / (weight - 1), nats; with weight 0 the loss of j
        with item i minus that without it. Negative = helpful: i lowered the loss of j.

    Raises:
        InputError: a weight of 1 or below 0.
    """
    _check_weight(weight)
    wanted = {int(step): row for row, step in enumerate(steps)}
    items = targets.shape[-1]
    found = np.full((len(wanted), items, items), np.nan)
    # The last of the batch is the original run.
    sample_weights = torch.cat([_one_changed(items, weight, targets.dtype), torch.ones(1, items, dtype=targets.dtype)])
    runs = descend(start.repeat(items + 1), targets, sample_weights, lr=lr, num_steps=max(wanted))
    for step, weights in enumerate(runs):
        if step in wanted:
            losses = item_losses(weights, targets)
            found[wanted[step]] = _effect(losses[:-1], losses[-1], weight)
    return found


def horizon_effect(
    run: Weights, targets: Tensor, *, lr: float, steps: Sequence[int], horizons: Sequence[int], weight: float = 0.0
) -> Array:
    """Changes each item's weight for D steps from a shared checkpoint, and reads the losses after these steps.

    Args:
        run: ``[step, ...]``, the run at weight 1.
        targets: ``[property, item]``.
        lr: learning rate.
        steps: of the checkpoints. The base run continues beyond the end of ``run`` if a horizon does.
        horizons: numbers of steps D, each 1 or more.
        weight: as in :func:`retraining_effect`.

    Returns:
        ``[horizon, step, item, item_j]``, nats; as in :func:`retraining_effect`.

    Raises:
        InputError: a weight of 1 or below 0, or a horizon below 1.
    """
    _check_weight(weight)
    if min(horizons) < 1:
        raise InputError(f"got horizons {list(horizons)}; expected 1 step or more each")
    items = targets.shape[-1]
    at = torch.as_tensor(list(steps))
    shared = Weights(run.first[at][:, None], run.second[at][:, None])
    batch = Weights(*(part.repeat(1, items + 1, 1, 1) for part in shared))
    sample_weights = torch.cat([_one_changed(items, weight, targets.dtype), torch.ones(1, items, dtype=targets.dtype)])
    wanted = {int(horizon): row for row, horizon in enumerate(horizons)}
    found = np.full((len(wanted), len(at), items, items), np.nan)
    for step, weights in enumerate(descend(batch, targets, sample_weights, lr=lr, num_steps=max(wanted))):
        if step in wanted:
            losses = item_losses(weights, targets)
            found[wanted[step]] = _effect(losses[:, :-1], losses[:, -1:], weight)
    return found


@dataclass(frozen=True)
class WindowEffect:
    """Effect of a change of one item's weight inside a window, in three readings.

    Each is ``[length, position, item, item_j]``, nats per unit of weight, negative = helpful, as in
    :func:`retraining_effect`.

    Attributes:
        window_end: effect at the end of the window.
        run_end: effect at the end of the run.
        maximum: largest deviation, with its sign, from the start of the window to the end of the run.
    """

    window_end: Array
    run_end: Array
    maximum: Array


def window_effect(
    run: Weights,
    targets: Tensor,
    *,
    lr: float,
    starts: Sequence[int],
    lengths: Sequence[int],
    weight: float = 0.0,
) -> WindowEffect:
    """Changes each item's weight inside windows of several lengths at several positions, all at once.

    Args:
        run: ``[step, ...]``, the run at weight 1, to its end.
        targets: ``[property, item]``.
        lr: learning rate.
        starts: first steps of the windows, increasing.
        lengths: of the windows, steps.
        weight: as in :func:`retraining_effect`.

    Raises:
        InputError: a weight of 1 or below 0, starts out of order, or a window beyond the end of the run.
    """
    _check_weight(weight)
    last = len(run.first) - 1
    if list(starts) != sorted(set(starts)) or min(starts) < 0 or min(lengths) < 1:
        raise InputError(f"got window starts {list(starts)} and lengths {list(lengths)}; expected increasing starts")
    if max(starts) + max(lengths) > last:
        raise InputError(
            f"got a window from step {max(starts)} of {max(lengths)} steps in a run of {last}; expected windows within "
            "the run; start earlier, shorten them, or train longer"
        )
    items, shape = targets.shape[-1], (len(lengths), len(starts))
    changed = _one_changed(items, weight, targets.dtype)
    # [position, length, item], sorted by start, so that active runs come first.
    per_start = len(lengths) * items
    ends = torch.tensor([[start + length for length in lengths] for start in starts])
    batch = Weights(
        torch.zeros(len(starts) * per_start, *run.first.shape[1:], dtype=targets.dtype),
        torch.zeros(len(starts) * per_start, *run.second.shape[1:], dtype=targets.dtype),
    )
    readings = {name: torch.zeros(len(starts), len(lengths), items, items) for name in ("window_end", "maximum")}
    readings = {name: reading.to(targets.dtype) for name, reading in readings.items()}
    deviation = torch.zeros_like(readings["maximum"])
    begun = 0
    for step in range(starts[0], last + 1):
        while begun < len(starts) and starts[begun] == step:
            rows = slice(begun * per_start, (begun + 1) * per_start)
            batch.first[rows], batch.second[rows] = run.first[step], run.second[step]
            begun += 1
        active = slice(0, begun * per_start)
        weights = Weights(batch.first[active], batch.second[active])
        base = item_losses(Weights(run.first[step], run.second[step]), targets)
        deviation = (item_losses(weights, targets) - base).view(begun, len(lengths), items, items)
        largest = readings["maximum"][:begun]
        torch.where(deviation.abs() > largest.abs(), deviation, largest, out=largest)
        ending = ends[:begun] == step
        readings["window_end"][:begun][ending] = deviation[ending]
        if step < last:
            inside = (ends[:begun] > step)[..., None, None]
            sample_weights = torch.where(inside, changed, torch.ones_like(changed)).view(-1, items)
            slope = gradient(weights, targets, sample_weights)
            weights.first.sub_(slope.first, alpha=lr)
            weights.second.sub_(slope.second, alpha=lr)
    readings["run_end"] = deviation
    by_length = {
        name: (reading / (weight - 1)).movedim(1, 0).reshape(*shape, items, items).numpy()
        for name, reading in readings.items()
    }
    return WindowEffect(**by_length)
