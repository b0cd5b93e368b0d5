"""Sequences of a sweep: a corpus in the model's own tokens, with token groups."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stagewise.errors import InputError
from stagewise.lm.classes.bigrams import BigramTable
from stagewise.lm.classes.groups import class_groups
from stagewise.lm.classes.reading import read_specs
from stagewise.lm.classes.vocabulary import read_vocabulary
from stagewise.lm.corpus import END_OF_TEXT, load_documents
from stagewise.lm.data import OBSERVED, SAMPLING
from stagewise.lm.text import hold_out
from stagewise.lm.tokens import text_groups
from stagewise.loading.order import seeded
from stagewise.sampling.data import ProbeData
from stagewise.sweep.config import SweepConfig, TextSettings
from stagewise.sweep.sources import Checkpoints, Limits, load_or_explain


def load_tokenizer(config: SweepConfig, source: Checkpoints) -> Any:
    """Returns the requested tokenizer, or that of the checkpoints.

    Args:
        config: of the sweep.
        source: of the checkpoints.

    Raises:
        InputError: no tokenizer, or one that cannot be loaded.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    given = config.data.tokenizer
    if given is None:
        own = source.tokenizer()
        if own is None:
            raise InputError(
                f"got checkpoints {config.checkpoints!r} without a tokenizer; expected tokenizer.json beside them; set "
                "data.tokenizer to a name, a folder or a tokenizer.json"
            )
        place, settings = own
    else:
        place, settings = given, {"cache_dir": config.cache_dir}
    what, advice = f"tokenizer {place!r}", "expected a Hugging Face tokenizer; set data.tokenizer"
    if Path(place).is_file():
        tokenizer = load_or_explain(lambda: PreTrainedTokenizerFast(tokenizer_file=place), what, advice)
        if END_OF_TEXT in tokenizer.get_vocab():
            tokenizer.eos_token = END_OF_TEXT
        return tokenizer
    return load_or_explain(lambda: AutoTokenizer.from_pretrained(place, **settings), what, advice)


def check_context(config: SweepConfig, limits: Limits) -> None:
    """Refuses sequences that the model cannot read.

    Args:
        config: of the sweep.
        limits: of the model.

    Raises:
        InputError: sequences are longer than the context.
    """
    if limits.context is not None and config.data.context > limits.context:
        raise InputError(
            f"got data.context={config.data.context}; expected at most {limits.context}, the context of the model; "
            "lower it"
        )


def check_tokens(ids: Tensor, tokenizer: Any, vocab_size: int) -> None:
    """Refuses a corpus with tokens that have no embedding in the model; the tokenizer itself may know such tokens.

    Args:
        ids: of a corpus, of any shape.
        tokenizer: tokenizer of the corpus.
        vocab_size: of the model.

    Raises:
        InputError: tokens beyond the embedding; the message names one.
    """
    beyond = ids[ids >= vocab_size]
    if len(beyond):
        first = int(beyond[0])
        raise InputError(
            f"got a corpus with {len(beyond)} tokens beyond the model's embedding of {vocab_size}, such as "
            f"{tokenizer.convert_ids_to_tokens(first)!r} (id {first}); expected the tokenizer that the model was "
            "trained with; set data.tokenizer, or take such tokens out of the text"
        )


def first_token(tokenizer: Any) -> int | None:
    """Returns the token that the tokenizer itself puts before a text; None if it puts none."""
    ids = tokenizer("a")["input_ids"]
    begins = tokenizer.bos_token_id
    return begins if begins is not None and len(ids) > 1 and ids[0] == begins else None


def token_rows(documents: Sequence[str], tokenizer: Any, context: int) -> Tensor:
    """Concatenates documents, each with an end-of-text token, and cuts them into sequences, without the remainder.

    Args:
        documents: texts.
        tokenizer: Hugging Face tokenizer.
        context: tokens in a sequence; if the tokenizer begins texts with a token, every sequence begins with it.

    Returns:
        Token ids ``[row, context]``, int64.
    """
    first, last = first_token(tokenizer), tokenizer.eos_token_id
    ended = [] if last is None else [last]
    encoded = tokenizer(list(documents), add_special_tokens=False, verbose=False)["input_ids"]
    flat = np.concatenate([np.array(ids + ended, dtype=np.int64) for ids in encoded])
    length = context if first is None else context - 1
    num = len(flat) // length
    rows = torch.from_numpy(flat[: num * length].reshape(num, length))
    return rows if first is None else torch.cat([torch.full((num, 1), first), rows], dim=1)


def groups_of(ids: Tensor, tokenizer: Any, settings: TextSettings, corpus: Tensor) -> dict[str, Tensor]:
    """Returns the token groups of the observed sequences.

    Args:
        ids: token ids ``[sample, position]``.
        tokenizer: Hugging Face tokenizer.
        settings: with the names of the classes.
        corpus: token ids ``[sample, position]`` for counts of bigrams, for classes of rare ones.

    Returns:
        Name to mask ``[sample, position - 1]``, bool; entry k is for token k + 1. Default groups, those without
        ``classes``, are left out if they have no token.

    Raises:
        InputError: a class of ``classes`` has no token.
    """
    if settings.classes is None:
        return {name: mask for name, mask in text_groups(ids, tokenizer).items() if mask.any()}
    specs = read_specs(settings.classes, complements=settings.complements)
    rare = any(spec.max_bigram_frequency is not None for spec in specs.values())
    bigrams = BigramTable.count(corpus) if rare else None
    return class_groups(ids, tokenizer, specs, bigrams=bigrams, complements=settings.complements)


def _drawn(rows: Tensor, num: int, settings: TextSettings, stream: int, what: str) -> Tensor:
    if len(rows) < num:
        raise InputError(
            f"got a corpus with {len(rows)} sequences of {settings.context} tokens for data.{what}={num}; expected as "
            "many; give more text, shorten data.context, or change data.held_out_fraction"
        )
    return rows[torch.randperm(len(rows), generator=seeded(settings.seed, stream))[:num]]


def sweep_data(config: SweepConfig, tokenizer: Any, limits: Limits | None = None) -> ProbeData:
    """Returns observed and sampling sequences, from different documents, with the groups of the observed ones.

    Args:
        config: of the sweep.
        tokenizer: of the sweep.
        limits: of the model; None skips the check of tokens.

    Raises:
        InputError: the corpus is not available or too small, or has tokens unknown to the model.
    """
    settings = config.data
    documents = load_documents(
        config.corpus,
        config_name=settings.config_name,
        split=settings.split,
        text_column=settings.text_column,
        streaming=settings.streaming,
        max_documents=settings.max_documents,
    )
    driving, held = hold_out(documents, settings.held_out_fraction)
    held_rows, driving_rows = (token_rows(documents, tokenizer, settings.context) for documents in (held, driving))
    if limits is not None:
        for rows in (held_rows, driving_rows):
            check_tokens(rows, tokenizer, limits.vocab_size)
    observed = _drawn(held_rows, settings.num_observed, settings, OBSERVED, "num_observed")
    sampling = _drawn(driving_rows, settings.num_sampling, settings, SAMPLING, "num_sampling")
    return ProbeData(
        {"input_ids": observed}, {"input_ids": sampling}, groups_of(observed, tokenizer, settings, driving_rows)
    )


def decoded(ids: Tensor, tokenizer: Any, samples: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Returns tokens of some sequences as text.

    Args:
        ids: token ids ``[sample, position]``.
        tokenizer: Hugging Face tokenizer.
        samples: sequences to decode; unknown ones are left to the check of the probe.
    """
    if not samples:
        return ()
    strings = read_vocabulary(tokenizer).strings
    return tuple(tuple(strings[token] for token in ids[sample].tolist()) for sample in samples if sample < len(ids))


def data_hash(data: ProbeData) -> str:
    """Returns a hash of sequences and groups, since cells of different data are not comparable."""
    digest = hashlib.sha256()
    assert data.sampling is not None
    for name, tensor in (
        ("observed", data.observed["input_ids"]),
        ("sampling", data.sampling["input_ids"]),
        *sorted(data.groups.items()),
    ):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
