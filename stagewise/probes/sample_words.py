"""Words for samples: text, label or number, short enough for a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor

from stagewise.batches import Batch, num_samples
from stagewise.probes.labels import label_name, sample_labels
from stagewise.structure import is_column, leaves

LONGEST = 120
"""Maximal number of characters kept of a text."""

_TOKENS = 4 * LONGEST
"""Number of tokens decoded for them, since some have no character."""


class Kind(StrEnum):
    """Kinds of words.

    Attributes:
        text: the beginning of the sample's text.
        label: its integer label.
        place: its index in the data set, if the observed set consists of indices.
        number: its position in the observed set; nothing else is known.
    """

    text = "text"
    label = "label"
    place = "index"
    number = "number"


@dataclass(frozen=True)
class SampleWords:
    """Words for each sample of an observed set.

    Attributes:
        words: one entry per sample, in order.
        kind: of all entries; among texts, a sample without a text has its number.
    """

    words: tuple[str, ...]
    kind: Kind


def words_of(batch: Batch, ids: Tensor | None = None, tokenizer: Any = None) -> SampleWords:
    """Finds words for the samples of a batch: decoded text, a column of strings, labels, indices, or numbers.

    Args:
        batch: the observed set.
        ids: its token ids ``[sample, position]``; None without any.
        tokenizer: tokenizer that decodes them; None without one.
    """
    numbers = [f"sample {number}" for number in range(num_samples(batch))]
    texts = _texts(batch, ids, tokenizer)
    if texts is not None and any(texts):
        return SampleWords(
            tuple(text or number for text, number in zip(texts, numbers, strict=True)),
            Kind.text,
        )
    labels = sample_labels(batch)
    if labels is not None:
        return SampleWords(tuple(map(label_name, labels.tolist())), Kind.label)
    if isinstance(batch, Tensor) and batch.dim() == 1 and not (batch.is_floating_point() or batch.is_complex()):
        return SampleWords(tuple(f"index {index}" for index in batch.tolist()), Kind.place)
    return SampleWords(tuple(numbers), Kind.number)


def _texts(batch: Batch, ids: Tensor | None, tokenizer: Any) -> list[str] | None:
    """Returns the shortened texts of a batch; None if there are none, or the tokenizer cannot decode them."""
    if ids is not None and tokenizer is not None:
        mask = batch.get("attention_mask") if hasattr(batch, "get") else None
        kept = mask.detach().cpu() != 0 if isinstance(mask, Tensor) and mask.shape == ids.shape else None
        rows = [row if kept is None else row[kept[place]] for place, row in enumerate(ids)]
        try:
            return [shortened(_decoded(row[:_TOKENS].tolist(), tokenizer)) for row in rows]
        except Exception:  # another vocabulary, or another kind of tokenizer
            return None
    columns = [leaf for _, leaf in leaves(batch) if is_column(leaf) and all(isinstance(entry, str) for entry in leaf)]
    return [shortened(text) for text in columns[0]] if len(columns) == 1 else None


def _decoded(ids: Sequence[int], tokenizer: Any) -> str:
    try:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    except TypeError:  # not of Hugging Face
        return str(tokenizer.decode(ids))


def shortened(text: str) -> str:
    r"""Returns the beginning of a text in one line, with characters that are not printable escaped, as ``\n``.

    Args:
        text: any text.

    Returns:
        At most :data:`LONGEST` characters; the last is ``…`` if some are left out.
    """
    text = text.strip(" ")
    line = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text[: LONGEST + 1])
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
