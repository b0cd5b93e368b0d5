"""Token groups as masks over loss positions ``[sample, position - 1]``; entry k refers to target token k + 1."""

from typing import Any

import torch
from torch import Tensor

from stagewise.errors import InputError

DELIMITERS = frozenset("()[]{}<>,;:.'\"`")
"""Characters of delimiters: a token of these and spaces alone is a delimiter."""


def check_ids(ids: Tensor) -> Tensor:
    """Returns token ids, after checking that they are integers ``[sample, position]`` with at least two positions.

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
    """Marks targets that can be looked up after an earlier copy of the preceding token.

    Args:
        ids: token ids ``[sample, position]``.

    Returns:
        ``[sample, position - 1]``, bool: entry k is True where some j < k has x_j = x_k and x_{j+1} = x_{k+1}.
    """
    copies = earlier_copies(ids)[:, :-1, :-1]
    followed = ids[:, 1:, None] == ids[:, None, 1:]
    return (copies & followed).any(dim=2)


def broken_repeats(ids: Tensor) -> Tensor:
    """Marks the control of :func:`induction_targets`: the preceding token occurred before, but never with this target.

    Args:
        ids: token ids ``[sample, position]``.

    Returns:
        ``[sample, position - 1]``, bool.
    """
    return earlier_copies(ids)[:, :-1].any(dim=2) & ~induction_targets(ids)


def vocabulary_mask(tokens: list[str], members: frozenset[str] = DELIMITERS) -> Tensor:
    """Marks tokens of a vocabulary that consist only of given characters, apart from spaces at the ends.

    Args:
        tokens: decoded strings, one per id.
        members: single characters.

    Returns:
        ``[token]``, bool.
    """
    return torch.tensor([bool(text.strip(" ")) and set(text.strip(" ")) <= members for text in tokens])


def decoded_vocabulary(tokenizer: Any) -> list[str]:
    """Returns the string of each token id of a Hugging Face tokenizer, in order; '' for unused ids."""
    there = set(tokenizer.get_vocab().values())
    return [
        tokenizer.decode([index], clean_up_tokenization_spaces=False) if index in there else ""
        for index in range(max(there, default=-1) + 1)
    ]


def delimiter_targets(ids: Tensor, tokenizer: Any) -> Tensor:
    """Marks targets that are brackets, quotes or punctuation.

    Args:
        ids: token ids ``[sample, position]``.
        tokenizer: Hugging Face tokenizer, whose decoded strings count.

    Returns:
        ``[sample, position - 1]``, bool.
    """
    check_ids(ids)
    return vocabulary_mask(decoded_vocabulary(tokenizer))[ids[:, 1:]]


def text_groups(ids: Tensor, tokenizer: Any) -> dict[str, Tensor]:
    """Returns the default groups of text tokens: ``induction`` and ``delimiter``, which may overlap, and ``rest``.

    Args:
        ids: token ids ``[sample, position]``.
        tokenizer: Hugging Face tokenizer.

    Returns:
        Maps names to masks ``[sample, position - 1]``, bool; together they cover every target.
    """
    induction = induction_targets(ids)
    delimiter = delimiter_targets(ids, tokenizer)
    return {"induction": induction, "delimiter": delimiter, "rest": ~(induction | delimiter)}
