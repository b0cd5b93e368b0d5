"""Scores of induction heads of a model on one batch: prefix matching, previous token, copying, and the loss gap.

Attention and behaviour are reported together, since a shortcut can open the loss gap without a head.

Source: Olsson et al. 2022, "In-context learning and induction heads" (arXiv 2209.11895), section 4 and appendix "head
activation evaluators". There, 25 random tokens are repeated 4 times, and the ICL score compares tokens 500 and 50.
"""

import torch
from torch import Tensor, nn

from stagewise.errors import InputError
from stagewise.lm.attention import look
from stagewise.lm.copying import copying_scores
from stagewise.lm.tokens import earlier_copies
from stagewise.loading.order import seeded


def repeated_random(
    num: int,
    *,
    vocab_size: int,
    context: int,
    segment_length: int = 25,
    copies: int = 4,
    bos_token_id: int | None = None,
    seed: int = 0,
) -> tuple[Tensor, int]:
    """Draws probe sequences of repeated random tokens.

    If the context is too short, the segment is shortened, never the number of copies: a context of 32 without a BOS
    token holds 4 copies of 8 tokens. The tokens of a segment are distinct if the vocabulary is large enough.

    Args:
        num: number of sequences.
        vocab_size: tokens are drawn from 0 .. ``vocab_size - 1``, without BOS.
        context: length of the longest sequence that the model supports.
        segment_length: largest number of tokens in a segment.
        copies: number of copies of each segment, 2 or more.
        bos_token_id: token placed before the first copy; None for models trained without one.
        seed: of the draw.

    Returns:
        Token ids ``[num, bos + copies * length]``, int64, and the segment length used.

    Raises:
        InputError: the context does not hold ``copies`` copies of two tokens, or a setting is out of range.
    """
    bos = int(bos_token_id is not None)
    length = min(segment_length, (context - bos) // max(copies, 1))
    if num < 1 or copies < 2 or length < 2 or vocab_size < 2 + bos:
        raise InputError(
            f"got {num} probe sequences of {copies} copies in a context of {context} tokens with a vocabulary of "
            f"{vocab_size}; expected at least 1 sequence and 2 copies of 2 tokens; lengthen the context or lower copies"
        )
    generator = seeded(seed)
    allowed = torch.tensor([token for token in range(vocab_size) if token != bos_token_id])
    if length <= len(allowed):
        picked = torch.rand(num, len(allowed), generator=generator).argsort(dim=1)[:, :length]
    else:
        picked = torch.randint(len(allowed), (num, length), generator=generator)
    ids = allowed[picked].repeat(1, copies)
    if bos_token_id is not None:
        ids = torch.cat([torch.full((num, 1), bos_token_id), ids], dim=1)
    return ids, length


def prefix_matching(attention: Tensor, ids: Tensor) -> Tensor:
    """Returns the mean attention from a token to the positions that follow earlier copies of it.

    Args:
        attention: ``[layer, sample, head, position, position]``, probabilities.
        ids: token ids ``[sample, position]``.

    Returns:
        ``[layer, head]``, 0 to 1: total mass on such positions, averaged over the tokens with an earlier copy; NaN if
        no token has one.
    """
    copies = earlier_copies(ids)
    # The position after the copy; j + 1 <= k, so that `roll` wraps nothing around.
    after = copies.roll(1, dims=2)
    asked = copies.any(dim=2)
    mass = (attention * after[None, :, None]).sum(dim=-1)
    return mass.sum(dim=(1, 3)) / asked.sum()


def previous_token(attention: Tensor) -> Tensor:
    """Returns the mean attention from each token, except the first, to the preceding one.

    Args:
        attention: ``[layer, sample, head, position, position]``, probabilities.

    Returns:
        ``[layer, head]``, 0 to 1.
    """
    return attention.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=(1, 3))


def icl_windows(num_targets: int) -> tuple[slice, slice]:
    """Returns the early and late targets of the ICL score.

    The original compares tokens 50 and 500 of 512, about a tenth of the way and the end. Here the second and the last
    eighth of the context are compared, so that short contexts have more than one token to average. For a context of
    32: tokens 4-7 and 28-31; for 512: tokens 64-127 and 448-511.

    Args:
        num_targets: number of losses per sequence, the context less one.

    Returns:
        Slices of the losses (entry k is the loss of token k + 1): early, late.
    """
    width = max(1, (num_targets + 1) // 8)
    early = max(0, width - 1)
    return slice(early, early + width), slice(num_targets - width, num_targets)


def icl_score(losses: Tensor) -> Tensor:
    """Returns the loss at late positions minus that at early ones; negative if the context helps.

    Args:
        losses: ``[sample, position - 1]``, nats; see :func:`icl_windows` for the positions.

    Returns:
        A scalar, nats per token.
    """
    early, late = icl_windows(losses.shape[1])
    return losses[:, late].mean() - losses[:, early].mean()


def loss_gap(losses: Tensor, segment_length: int, *, bos: bool = False) -> Tensor:
    """Returns the loss on the second copy minus that on the first; negative if the model copies.

    The first token of either copy is excluded, since it cannot be predicted.

    Args:
        losses: ``[sample, position - 1]``, nats, of sequences from :func:`repeated_random`.
        segment_length: tokens in a copy.
        bos: True if a BOS token comes first.

    Returns:
        A scalar, nats per token.

    Raises:
        InputError: the sequences do not hold two copies.
    """
    start = int(bos)
    if segment_length < 2 or losses.shape[1] + 1 < start + 2 * segment_length:
        raise InputError(
            f"got losses of {losses.shape[1]} targets for segments of {segment_length} tokens; expected two copies of "
            "at least 2 tokens; pass the segment length that repeated_random returned"
        )
    first = losses[:, start : start + segment_length - 1]
    second = losses[:, start + segment_length : start + 2 * segment_length - 1]
    return second.mean() - first.mean()


def induction_scores(
    model: nn.Module, ids: Tensor, segment_length: int, *, bos: bool = False
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Computes all scores of one model on one batch of repeated random segments.

    Args:
        model: Hugging Face causal language model, in eval mode.
        ids: probe sequences from :func:`repeated_random`, on the model's device.
        segment_length: segment length returned by :func:`repeated_random`.
        bos: True if the sequences begin with a BOS token.

    Returns:
        The scores by name (``prefix_matching`` and ``previous_token`` of the best head, ``icl_score``, ``loss_gap``,
        and, for supported architectures, ``copying`` of the head with the best prefix matching), and the tables
        ``[layer, head]`` of the scores of heads.

    Raises:
        InputError: the model returns no attention weights.
    """
    seen = look(model, ids)
    tables = {
        "prefix_matching": prefix_matching(seen.attention, ids).cpu(),
        "previous_token": previous_token(seen.attention).cpu(),
    }
    scores = {name: table.max().item() for name, table in tables.items()}
    copying = copying_scores(model)
    if copying is not None:
        tables["copying"] = copying
        scores["copying"] = copying.flatten()[tables["prefix_matching"].argmax()].item()
    scores["icl_score"] = icl_score(seen.losses).item()
    scores["loss_gap"] = loss_gap(seen.losses, segment_length, bos=bos).item()
    return scores, tables
