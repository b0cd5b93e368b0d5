"""Checks that EK-FAC factors fit a module, a batch and a loss."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stagewise.batches import Batch
from stagewise.errors import InputError
from stagewise.losses.contract import LossFn, evaluate
from stagewise.sampling.selection import Entries

Loss = Literal["cross_entropy", "mse"]

_LAYERS = (nn.Linear, nn.Conv2d)
_CHECKED = 64
"""Number of samples on which the module's loss is compared with the loss of the factors."""


def check_parameters(module: nn.Module, leaves: dict[str, Tensor]) -> None:
    """Refuses parameters for which curvlinops has no factors, or wrong ones.

    Args:
        module: as the chains see it.
        leaves: the parameters that the chains move, by name.

    Raises:
        InputError: a parameter outside of Linear and Conv2d layers, shared by two layers, or of half precision.
    """
    remedy = "leave it at w* by SGLDConfig(parameters=[...]), or take another preconditioner"
    names: dict[int, list[str]] = {}
    # Each module once: a layer under two names is one layer.
    for prefix, layer in module.named_modules():
        for name, parameter in layer.named_parameters(prefix, recurse=False, remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
    tied = {name: group for group in names.values() if len(group) > 1 for name in group}
    for name, value in leaves.items():
        owner, _, kind = name.rpartition(".")
        layer = module.get_submodule(owner)
        if not isinstance(layer, _LAYERS) or kind not in ("weight", "bias"):
            raise InputError(
                f"got parameter {name!r} of a {type(layer).__name__} with EKFAC; expected weights and biases of Linear "
                f"and Conv2d layers; {remedy}"
            )
        if name in tied:
            raise InputError(f"got parameter {name!r} shared as {tied[name]} with EKFAC; expected one layer; {remedy}")
        if value.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"got parameter {name!r} of {value.dtype} with EKFAC; expected float32 or float64; {remedy}"
            )


def refuse_masks(entries: Sequence[Entries]) -> None:
    """Refuses chains that move only part of a parameter: the Kronecker eigenbasis of a layer mixes all its weights.

    Raises:
        InputError: a parameter moves only in part.
    """
    for part in entries:
        if part.index is not None:
            raise InputError(
                f"got a mask that moves {part.size} of {part.shape.numel()} entries of {part.name!r} with EKFAC; "
                "expected whole parameters; take another preconditioner, or a component that is made of whole ones"
            )


def loss_factor(loss: Loss, module: nn.Module, loss_fn: LossFn, sampling: Batch, leaves: dict[str, Tensor]) -> float:
    """Measures the ratio of the module's per-sample losses to the library's on the first samples.

    Args:
        loss: kind of loss, as given in the settings.
        module: in eval mode.
        loss_fn: per-sample loss.
        sampling: the set (x, y).
        leaves: the parameters that the chains move, by name.

    Raises:
        InputError: the losses are not proportional, a layer is not called exactly once, or the batch does not fit.
    """
    if not (
        isinstance(sampling, tuple | list) and len(sampling) == 2 and all(isinstance(part, Tensor) for part in sampling)
    ):
        raise InputError(
            f"got a sampling batch of type {type(sampling).__name__} with EKFAC; expected two tensors (x, y); "
            "take another preconditioner"
        )
    x, y = (part[:_CHECKED] for part in sampling)
    calls = dict.fromkeys((name.rpartition(".")[0] for name in leaves), 0)

    def count(name: str) -> Any:
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    handles = [module.get_submodule(name).register_forward_hook(count(name)) for name in calls]
    with torch.no_grad():
        prediction = module(x)
        for handle in handles:
            handle.remove()
        _check_prediction(loss, prediction, y)
        losses = evaluate(loss_fn, module, (x, y))
    for name, number in calls.items():
        if number != 1:
            raise InputError(
                f"got layer {name!r} called {number} times in one forward pass with EKFAC; expected once; leave its "
                "parameters at w* by SGLDConfig(parameters=[...]), or take another preconditioner"
            )
    if loss == "cross_entropy":
        want = nn.functional.cross_entropy(prediction, y, reduction="none")
    else:
        want = (prediction - y).square().sum(dim=1)
    got = losses.values
    factor = float(got.sum() / want.sum()) if want.sum() > 0 and got.shape == want.shape else 1.0
    if got.shape != want.shape or not losses.mask.all() or not torch.allclose(got, factor * want, rtol=1e-3, atol=1e-6):
        raise InputError(
            f"got per-sample losses {_few(got)} where {loss} of module(x) is {_few(want)}; expected losses "
            "proportional to it, unmasked; set EKFAC(loss=...) to what the loss is, or take another preconditioner"
        )
    return factor


def _check_prediction(loss: Loss, prediction: object, y: Tensor) -> None:
    fits = isinstance(prediction, Tensor) and prediction.dim() == 2
    if loss == "cross_entropy":
        fits = fits and y.dim() == 1 and not y.is_floating_point()
        expected = "logits [sample, class] and class indices [sample]"
    else:
        fits = fits and y.shape == prediction.shape  # type: ignore[attr-defined]
        expected = "predictions and targets [sample, output] of one shape"
    if not fits:
        shape = list(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
        raise InputError(
            f"got module(x) of shape {shape} and y of shape {list(y.shape)}, {y.dtype}, with EKFAC(loss="
            f"{loss!r}); expected {expected}; take another preconditioner"
        )


def _few(values: Tensor) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values.flatten()[:3].tolist())}, ...]"


@contextmanager
def hooks_restored(module: nn.Module) -> Iterator[None]:
    """Context that removes forward hooks left behind by an exception in curvlinops."""
    tables = [table for child in module.modules() for table in (child._forward_hooks, child._forward_pre_hooks)]
    before = [set(table) for table in tables]
    try:
        yield
    finally:
        for table, known in zip(tables, before, strict=True):
            for key in [key for key in table if key not in known]:
                del table[key]
