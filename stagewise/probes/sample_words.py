"""Words for samples: text, label or number, short enough to stand in a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor

from stagewise.batches import Batch, num_samples
from stagewise.probes.labels import label_name, sample_labels
from stagewise.structure import is_column, leaves

LONGEST = 120
"""Characters of a text that are kept."""

_TOKENS = 4 * LONGEST
"""Tokens that are decoded for them: some have no character."""


class Kind(StrEnum):
    """Kinds of words.

    Attributes:
        text: the beginning of the sample's text.
        label: its integer label.
        place: its index in the data set, of an observed set of indices.
        number: its place in the observed set; nothing else is known.
    """

    text = "text"
    label = "label"
    place = "index"
    number = "number"


@dataclass(frozen=True)
class SampleWords:
    """Words for each sample of an observed set.

    Attributes:
        words: one for each, in order.
        kind: of them all; a sample without a text has its number among texts.
    """

    words: tuple[str, ...]
    kind: Kind


def words_of(batch: Batch, ids: Tensor | None = None, tokenizer: Any = None) -> SampleWords:
    """Finds words for the samples of a batch: decoded text, a column of strings, labels, indices, or numbers.

    Args:
        batch: the observed set.
        ids: its token ids ``[sample, position]``, where it has some.
        tokenizer: that decodes them; None for none.
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
    """Texts of a batch, shortened; None where there are none, or the tokenizer cannot read them."""
    if ids is not None and tokenizer is not None:
        mask = batch.get("attention_mask") if hasattr(batch, "get") else None
        kept = mask.detach().cpu() != 0 if isinstance(mask, Tensor) and mask.shape == ids.shape else None
        rows = [row if kept is None else row[kept[place]] for place, row in enumerate(ids)]
        try:
            return [shortened(_decoded(row[:_TOKENS].tolist(), tokenizer)) for row in rows]
        except Exception:  # of another vocabulary, or a tokenizer of another kind
            return None
    columns = [leaf for _, leaf in leaves(batch) if is_column(leaf) and all(isinstance(entry, str) for entry in leaf)]
    return [shortened(text) for text in columns[0]] if len(columns) == 1 else None


def _decoded(ids: Sequence[int], tokenizer: Any) -> str:
    try:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    except TypeError:  # not of Hugging Face
        return str(tokenizer.decode(ids))


def shortened(text: str) -> str:
    r"""The beginning of a text in one line: characters that are not printable are escaped, as ``\n``.

    Args:
        text: of any length, with anything in it.

    Returns:
        At most :data:`LONGEST` characters, the last of them ``…`` where some are left out.
    """
    text = text.strip(" ")
    line = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text[: LONGEST + 1])
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
