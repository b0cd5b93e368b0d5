"""Token losses from hidden states and an output layer, without holding the logits of all tokens at once."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from stagewise.isolation.shards import sharded_modules

LEAST_LOGITS = 2**23
"""Number of logits of a batch (tokens times vocabulary) from which they are computed in chunks. Below, time is the same
and memory small (32 MiB), and losses equal those of ``F.cross_entropy`` bit for bit."""

_CHUNK_LOGITS = 2**24
"""Number of logits of a chunk: 333 tokens with a vocabulary of 50,304. Measured on one CPU thread, chunks of 64 tokens
take 1.2 times as long as chunks of 256."""

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)

_unfit: WeakSet[nn.Module] = WeakSet()
"""Models whose logits are more than a single product."""


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of a product, chunk by chunk; the backward pass recomputes the logits.

    Log-sum-exp and gradient are as in Wijmans et al. 2024, arXiv 2411.09009, without the kernel. With in-place
    operations and one buffer for all chunks it is as fast on a CPU as ``F.linear_cross_entropy`` of torch 2.13 with the
    same chunks, works with every version of torch, and has a second derivative.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, ignored: int) -> Tensor:
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        normalizers = torch.empty_like(losses)
        for rows, logits in _chunks(hidden, weight):
            place = targets[rows].clamp(min=0).unsqueeze(1)
            picked = logits.gather(1, place).squeeze(1)
            top = logits.amax(dim=1)
            total = logits.sub_(top.unsqueeze(1)).exp_().sum(dim=1).log_().add_(top)
            normalizers[rows] = total
            losses[rows] = total - picked
        ctx.save_for_backward(hidden, weight, targets, normalizers)
        ctx.ignored = ignored
        return losses.masked_fill_(targets == ignored, 0.0)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normalizers = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        slope = slopes[0].masked_fill(targets == ctx.ignored, 0.0)
        if torch.is_grad_enabled():
            return (*_differentiable(hidden, weight, targets, slope, ctx.ignored, needed), None, None)
        of_hidden = torch.empty_like(hidden) if needed[0] else None
        # Sums over chunks in half precision would lose digits that a single product keeps.
        half = weight.dtype in (torch.float16, torch.bfloat16)
        of_weight = torch.zeros_like(weight, dtype=torch.float32 if half else weight.dtype) if needed[1] else None
        for rows, logits in _chunks(hidden, weight):
            place = targets[rows].clamp(min=0).unsqueeze(1)
            shares = logits.sub_(normalizers[rows].unsqueeze(1)).exp_()
            shares.scatter_add_(1, place, shares.new_full(place.shape, -1.0))
            shares = shares.mul_(slope[rows].unsqueeze(1)).to(hidden.dtype)
            if of_hidden is not None:
                torch.mm(shares, weight, out=of_hidden[rows])
            if of_weight is not None and half:
                of_weight.add_(shares.T @ hidden[rows])
            elif of_weight is not None:
                of_weight.addmm_(shares.T, hidden[rows])
        return of_hidden, None if of_weight is None else of_weight.to(weight.dtype), None, None


def _chunks(hidden: Tensor, weight: Tensor) -> Any:
    """Yields slices of rows with their logits in float32, which the caller may overwrite."""
    size = max(1, _CHUNK_LOGITS // len(weight))
    room = hidden.new_empty(min(size, len(hidden)), len(weight))
    for start in range(0, len(hidden), size):
        rows = slice(start, min(start + size, len(hidden)))
        part = hidden[rows]
        yield rows, torch.mm(part, weight.T, out=room[: len(part)]).float()


def _differentiable(
    hidden: Tensor, weight: Tensor, targets: Tensor, slope: Tensor, ignored: int, needed: tuple[bool, ...]
) -> list[Tensor | None]:
    """Returns the same gradient with a graph, from all logits, for second derivatives."""
    # Views: with tied weights the hidden states depend on the weight, but that path does not belong to this layer.
    inputs = [hidden.view_as(hidden), weight.view_as(weight)]
    logits = F.linear(inputs[0], inputs[1]).float()
    losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=ignored)
    wanted = [value for value, wants in zip(inputs, needed, strict=True) if wants]
    found = iter(torch.autograd.grad(losses, wanted, slope, create_graph=True))
    return [next(found) if wants else None for wants in needed]


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, *, ignored: int) -> Tensor:
    """Returns the cross-entropy of logits ``hidden @ weight.T``, equal to ``F.cross_entropy`` up to rounding.

    With autocast, products are computed in its precision, and everything else in float32.

    Args:
        hidden: ``[token, width]``.
        weight: ``[vocabulary, width]``, of the same precision.
        targets: ``[token]``, int64.
        ignored: target of tokens without a loss.

    Returns:
        Losses ``[token]``, nats, float32; zero where ignored. They can be differentiated twice, but not in forward
        mode, nor within ``torch.func``.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(kind, enabled=False):
        losses: Tensor = _CrossEntropy.apply(hidden, weight, targets, ignored)
    return losses


def plain_head(model: nn.Module, num_tokens: int) -> nn.Linear | None:
    """Returns the output layer of a causal language model if its logits may be computed in chunks; else None.

    This requires eval mode, at least :data:`LEAST_LOGITS` logits, and a linear layer without bias, hooks or sharded
    weights, outside of transformations by ``torch.func``, a trace or a compiler.

    Args:
        model: a model of ``transformers``.
        num_tokens: number of tokens in the batch.
    """
    # Sharded modules are excluded even while a pass has left their weights whole.
    if model.training or model in _unfit or _transformed() or sharded_modules(model):
        return None
    get: Callable[[], object] | None = getattr(model, "get_output_embeddings", None)
    head = get() if callable(get) else None
    if type(head) is not nn.Linear or head.bias is not None or any(getattr(head, name) for name in _HOOKS):
        return None
    # The exact class: sharded weights have another.
    plain = type(head.weight) in (nn.Parameter, Tensor) and not hasattr(head.weight, "_fsdp_flattened")
    large = num_tokens * head.out_features >= LEAST_LOGITS
    return head if plain and large and head.weight.is_floating_point() else None


def _transformed() -> bool:
    return (
        get_proxy_mode() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch.autograd.forward_ad._current_level >= 0
    )


def hidden_states(model: nn.Module, head: nn.Linear, inputs: dict[str, Any]) -> Tensor | None:
    """Returns the input of a model's output layer, ``[sample, position, width]``, without computing logits.

    During the call, the layer receives no positions at all. Returns None if the model transforms the layer's output (a
    scale, a soft cap, a copy in another precision); such a model is remembered and should be called as usual.

    Args:
        model: in eval mode.
        head: from :func:`plain_head`.
        inputs: of the forward pass.
    """
    given: list[Tensor] = []
    made: list[Tensor] = []

    def none(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given.append(args[0])
        return (args[0].narrow(-2, 0, 0),)

    def keep(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        made.append(output)

    handles = [head.register_forward_pre_hook(none), head.register_forward_hook(keep)]
    try:
        output = model(**inputs)
        logits = output[0] if isinstance(output, tuple) else output.logits
    except torch.OutOfMemoryError:
        raise
    except Exception:  # the model may fail without logits
        logits = None
    finally:
        for handle in handles:
            handle.remove()
    if len(made) == 1 and logits is made[0] and given[0].dim() == 3:
        return given[0]
    _unfit.add(model)
    return None
