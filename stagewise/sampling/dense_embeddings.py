"""Embeddings with dense gradients and second derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class DenseEmbeddings(TorchFunctionMode):
    """Context in which :func:`torch.nn.functional.embedding` and ``embedding_bag`` use other operations; same values.

    torch's own bags have no second derivative; sparse gradients have neither a second derivative nor a batching rule.
    Bags by ``max`` and bags that scale gradients by frequency are not replaced. Each torch function costs one more
    Python call.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Runs in place of each torch function."""
        kwargs = kwargs or {}
        if func is F.embedding:
            return _embedding(*args, **kwargs)
        if func is F.embedding_bag:
            return _embedding_bag(*args, **kwargs)
        return func(*args, **kwargs)


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    return F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse=False)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    if mode not in ("sum", "mean") or scale_grad_by_freq:
        return F.embedding_bag(
            input,
            weight,
            offsets,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            False,
            per_sample_weights,
            include_last_offset,
            padding_idx,
        )
    rows = F.embedding(input, weight, None, max_norm, norm_type)
    kept = torch.ones_like(input) if padding_idx is None else input != padding_idx
    kept = kept.to(rows.dtype)
    rows = rows * (kept if per_sample_weights is None else kept * per_sample_weights).unsqueeze(-1)
    if offsets is None:
        total, count = rows.sum(1), kept.sum(1)
    else:
        starts = offsets[:-1] if include_last_offset else offsets
        places = torch.arange(len(input), device=input.device, dtype=starts.dtype)
        bags = torch.searchsorted(starts, places, right=True) - 1
        total = rows.new_zeros(len(starts), rows.shape[-1]).index_add(0, bags, rows)
        count = kept.new_zeros(len(starts)).index_add(0, bags, kept)
    return total / count.clamp(min=1).unsqueeze(-1) if mode == "mean" else total
