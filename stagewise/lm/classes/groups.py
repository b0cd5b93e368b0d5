"""Classes of target tokens as masks over loss positions ``[sample, position - 1]``, the shape of token losses."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stagewise.errors import InputError
from stagewise.lm.classes.bigrams import BigramTable
from stagewise.lm.classes.predicates import ask
from stagewise.lm.classes.reading import ClassSpecs, complement_name, load_predicate, read_specs
from stagewise.lm.classes.spec import ClassSpec
from stagewise.lm.classes.token_text import TokenText
from stagewise.lm.classes.vocabulary import Vocabulary, read_vocabulary


def members(name: str, spec: ClassSpec, text: TokenText) -> Tensor:
    """Marks the targets of one class.

    Args:
        name: of the class, for messages.
        spec: conditions of the class.
        text: rows of tokens.

    Returns:
        ``[sample, position - 1]``, bool.

    Raises:
        InputError: a bigram table is missing, or a predicate returns an invalid result.
    """
    chosen = ~text.special[:, 1:]
    if spec.pattern is not None:
        chosen &= text.matches(spec.pattern)[:, 1:]
    if spec.preceded_by is not None:
        chosen &= text.matches(spec.preceded_by)[:, :-1]
    if spec.not_preceded_by is not None:
        chosen &= ~text.matches(spec.not_preceded_by)[:, :-1]
    if spec.followed_by is not None:
        chosen[:, :-1] &= text.matches(spec.followed_by)[:, 2:]
    if spec.not_followed_by is not None:
        chosen[:, :-1] &= ~text.matches(spec.not_followed_by)[:, 2:]
    if spec.followed_by is not None or spec.not_followed_by is not None:
        chosen[:, -1] = False
    if spec.predicate is not None:
        chosen &= ask(name, load_predicate(spec.predicate), text)
    if spec.max_bigram_frequency is not None:
        if text.bigrams is None:
            raise InputError(
                f"got class {name!r} with max_bigram_frequency and no bigrams; expected those of a corpus; pass "
                "bigrams=BigramTable.count(ids), or leave the class out"
            )
        chosen &= text.bigrams.frequency(text.ids) <= spec.max_bigram_frequency
    return chosen


def class_masks(
    ids: Tensor,
    tokenizer: Any,
    specs: ClassSpecs,
    *,
    bigrams: BigramTable | None = None,
    complements: bool = False,
) -> dict[str, Tensor]:
    """Returns groups as :func:`class_groups`, but allows empty ones.

    Raises:
        InputError: ids, tokenizer or classes are unusable.
    """
    named = read_specs(specs, complements=complements)
    vocabulary = tokenizer if isinstance(tokenizer, Vocabulary) else read_vocabulary(tokenizer)
    text = TokenText(ids, vocabulary, bigrams)
    masks = {name: members(name, spec, text) for name, spec in named.items()}
    if complements:
        ordinary = ~text.special[:, 1:]
        for name, spec in named.items():
            others = ordinary & ~masks[name]
            if spec.followed_by is not None or spec.not_followed_by is not None:
                others[:, -1] = False  # the next token, and so membership in the class, is unknown
            masks[complement_name(name)] = others
    return masks


def refuse_empty(masks: Mapping[str, Tensor]) -> None:
    """Refuses a class without a target.

    Raises:
        InputError: such a class; the message names the first.
    """
    for name, mask in masks.items():
        if not torch.any(mask):
            raise InputError(
                f"got class {name!r}, which matches none of {mask.numel()} targets; expected at least one; widen it "
                "(patterns see tokens as they stand in text, such as ' def'), observe more sequences, or leave it out"
            )


def class_groups(
    ids: Tensor,
    tokenizer: Any,
    specs: ClassSpecs,
    *,
    bigrams: BigramTable | None = None,
    complements: bool = False,
) -> dict[str, Tensor]:
    """Returns groups of target tokens. A target may be in several classes or in none; special tokens are in none.

    Args:
        ids: token ids ``[sample, position]``.
        tokenizer: Hugging Face tokenizer of these ids, or its :class:`~stagewise.lm.classes.vocabulary.Vocabulary`.
        specs: names of :data:`~stagewise.lm.classes.defaults.DEFAULT_CLASSES`, or a mapping of names to classes: each a
            ``ClassSpec``, an equivalent mapping, or the name of a default class.
        bigrams: of a corpus, for classes with ``max_bigram_frequency``.
        complements: also return ``not_<name>`` for each class: all other targets that are not special, except the last
            of a row if the class depends on the following token.

    Returns:
        Maps names to masks ``[sample, position - 1]``, bool, in the order of ``specs``, complements last.

    Raises:
        InputError: ids, tokenizer or classes are unusable, or a class or complement has no target.
    """
    masks = class_masks(ids, tokenizer, specs, bigrams=bigrams, complements=complements)
    refuse_empty(masks)
    return masks
