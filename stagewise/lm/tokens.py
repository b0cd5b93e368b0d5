"""Token groups, as masks over loss positions: ``[sample, position - 1]``, entry k refers to target token k + 1."""

from typing import Any

import torch
from torch import Tensor

from stagewise.errors import InputError

DELIMITERS = frozenset("()[]{}<>,;:.'\"`")
"""Characters that make a token a delimiter when it holds nothing else but spaces."""


def check_ids(ids: Tensor) -> Tensor:
    """Token ids as they must be: an integer tensor ``[sample, position]`` of at least two positions.

    Raises:
        InputError: another shape or type.
    """
    if ids.dim() != 2 or ids.shape[1] < 2 or ids.is_floating_point():
        raise InputError(
            f"got token ids of shape {list(ids.shape)} and type {ids.dtype}; expected integers [sample, position] "
            "with at least two positions"
        )
    return ids


def earlier_copies(ids: Tensor) -> Tensor:
    """Marks the earlier occurrences of each token.

    Args:
        ids: token ids ``[sample, position]``.

    Returns:
        ``[sample, position k, position j]``, bool: True where j < k and x_j = x_k.
    """
    check_ids(ids)
    return (ids[:, :, None] == ids[:, None, :]).tril(diagonal=-1)


def induction_targets(ids: Tensor) -> Tensor:
    """Marks targets that follow from a look-up after an earlier copy of the last token.

    Args:
        ids: token ids ``[sample, position]``.

    Returns:
        ``[sample, position - 1]``, bool: entry k is True where some j < k has x_j = x_k and x_{j+1} = x_{k+1}.
    """
    copies = earlier_copies(ids)[:, :-1, :-1]
    followed = ids[:, 1:, None] == ids[:, None, 1:]
    return (copies & followed).any(dim=2)


def broken_repeats(ids: Tensor) -> Tensor:
    """Marks the control class of :func:`induction_targets`: the last token occurred before, never with this follower.

    Args:
        ids: token ids ``[sample, position]``.

    Returns:
        ``[sample, position - 1]``, bool.
    """
    return earlier_copies(ids)[:, :-1].any(dim=2) & ~induction_targets(ids)


def vocabulary_mask(tokens: list[str], members: frozenset[str] = DELIMITERS) -> Tensor:
    """Marks tokens of a vocabulary that consist of given characters alone, spaces at the ends aside.

    Args:
        tokens: decoded strings, one for each id.
        members: single characters.

    Returns:
        ``[token]``, bool.
    """
    return torch.tensor([bool(text.strip(" ")) and set(text.strip(" ")) <= members for text in tokens])


def decoded_vocabulary(tokenizer: Any) -> list[str]:
    """Returns the string of each token id of a Hugging Face tokenizer, in order; '' for ids that no token has."""
    there = set(tokenizer.get_vocab().values())
    return [
        tokenizer.decode([index], clean_up_tokenization_spaces=False) if index in there else ""
        for index in range(max(there, default=-1) + 1)
    ]


def delimiter_targets(ids: Tensor, tokenizer: Any) -> Tensor:
    """Returns targets that are brackets, quotes or punctuation.

    Args:
        ids: token ids ``[sample, position]``.
        tokenizer: Hugging Face tokenizer; tokens are judged by their decoded strings.

    Returns:
        ``[sample, position - 1]``, bool.
    """
    check_ids(ids)
    return vocabulary_mask(decoded_vocabulary(tokenizer))[ids[:, 1:]]


def text_groups(ids: Tensor, tokenizer: Any) -> dict[str, Tensor]:
    """Returns the first classes of text tokens: ``induction``, ``delimiter`` (the two may overlap), and the ``rest``.

    Args:
        ids: token ids ``[sample, position]``.
        tokenizer: Hugging Face tokenizer.

    Returns:
        Name to mask ``[sample, position - 1]``, bool; together they cover every target.
    """
    induction = induction_targets(ids)
    delimiter = delimiter_targets(ids, tokenizer)
    return {"induction": induction, "delimiter": delimiter, "rest": ~(induction | delimiter)}
