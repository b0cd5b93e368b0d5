"""Data module of text mixed with sequences of repeated random segments."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stagewise.errors import InputError
from stagewise.lm.classes.bigrams import BigramTable
from stagewise.lm.classes.groups import class_masks, refuse_empty
from stagewise.lm.classes.reading import read_specs
from stagewise.lm.classes.spec import ClassSpec
from stagewise.lm.classes.vocabulary import read_vocabulary
from stagewise.lm.corpus import load_documents, train_tokenizer
from stagewise.lm.data import OBSERVED, SAMPLING, TRAIN, SequenceData, TokenRows
from stagewise.lm.rich import group_name, richest, share_of_targets
from stagewise.lm.tokens import text_groups
from stagewise.loading.order import seeded
from stagewise.sampling.data import ProbeData


def hold_out(documents: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """Splits documents into training and held-out ones, independently of the run's seed.

    A single document is cut at a line end, so that about ``fraction`` of its lines is held out.

    Args:
        documents: without duplicates.
        fraction: share of documents to hold out, between 0 and 1; at least one is held out.

    Returns:
        Training documents, held-out documents.

    Raises:
        InputError: the fraction is out of range, or a single document has a single line.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(f"got held_out_fraction {fraction}; expected more than 0 and less than 1")
    if len(documents) == 1:
        lines = documents[0].splitlines(keepends=True)
        cut = min(len(lines) - 1, round(len(lines) * (1 - fraction)))
        if cut < 1:
            raise InputError("got a corpus of one line; expected several lines or documents, to hold some out")
        return ["".join(lines[:cut])], ["".join(lines[cut:])]
    order = torch.randperm(len(documents), generator=seeded(0)).tolist()
    num = min(len(documents) - 1, max(1, round(len(documents) * fraction)))
    held = set(order[:num])
    return [text for i, text in enumerate(documents) if i not in held], [documents[i] for i in sorted(held)]


def token_rows(documents: Sequence[str], tokenizer: Any, context: int) -> Tensor:
    """Tokenizes documents, appends the end-of-text token to each, and cuts the result into rows; drops the remainder.

    Args:
        documents: texts.
        tokenizer: from :func:`stagewise.lm.corpus.train_tokenizer`.
        context: tokens per row.

    Returns:
        Token ids ``[row, context]``, int64.
    """
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(list(documents), add_special_tokens=False)
    end = np.array([tokenizer.eos_token_id])
    flat = np.concatenate([part for text in encoded for part in (np.array(text.ids, dtype=np.int64), end)])
    num = len(flat) // context
    return torch.from_numpy(flat[: num * context].reshape(num, context))


def _read_classes(classes: dict[str, ClassSpec | str] | list[str] | None, complements: bool) -> dict[str, ClassSpec]:
    """Reads classes by name; an empty mapping if none are given."""
    if classes is None:
        if complements:
            raise InputError("got complements without classes; expected classes to complement; name some")
        return {}
    read = read_specs(classes, complements=complements)
    if "first_copy" in read:
        raise InputError(
            "got class 'first_copy'; expected another name, since it is that of the targets of repeated segments "
            "without an earlier copy; rename yours"
        )
    return read


def _rich_spec(name: str | None, share: float, specs: Mapping[str, ClassSpec]) -> dict[str, ClassSpec]:
    """Returns the class of the training group of rich sequences, by name; an empty mapping if none is given."""
    if not 0 < share < 1:
        raise InputError(f"got rich_share={share}; expected more than 0 and less than 1; 0.25 is usual")
    if name is None:
        return {}
    return {name: specs[name]} if name in specs else read_specs([name])


class ServedRows(Dataset):
    """``datasets.Dataset`` that returns a whole batch at once: ``{"input_ids": [batch, position]}``.

    Attributes:
        table: the ``datasets.Dataset``, one column ``input_ids``.
    """

    def __init__(self, ids: Tensor) -> None:
        """Converts token ids ``[sample, position]`` to a ``datasets.Dataset``."""
        import datasets

        self.table = datasets.Dataset.from_dict({"input_ids": ids.numpy()}).with_format("torch")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.table[index]

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return self.table[list(indices)]


class TextData(SequenceData):
    """Text in sequences of one length, mixed with sequences of repeated segments of random tokens.

    Training groups are kinds of sequences: ``induction``, the repeated segments, and ``text``. Text that repeats itself
    counts as ``text`` here, whereas the probes' group ``induction`` includes its repeats. With ``rich_class`` there is
    also ``rich_in_<class>``, the text sequences with the largest shares of targets of that class: a group for an
    intervention on real text, which depends on the tokens alone.

    Attributes:
        tokenizer: byte-level BPE of the training documents, available after ``setup``.
    """

    tokenizer: Any = None

    def __init__(
        self,
        corpus: str = "stdlib",
        vocab_size: int = 512,
        context: int = 32,
        batch_size: int = 32,
        induction_fraction: float = 0.25,
        min_segment: int = 4,
        max_segment: int = 16,
        num_sequences: int | None = None,
        num_val: int = 512,
        num_observed: int = 32,
        num_sampling: int = 1024,
        held_out_fraction: float = 0.05,
        text_column: str = "text",
        config_name: str | None = None,
        split: str = "train",
        streaming: bool = False,
        max_documents: int | None = None,
        cache_dir: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
        classes: dict[str, ClassSpec | str] | list[str] | None = None,
        complements: bool = False,
        rich_class: str | None = None,
        rich_share: float = 0.25,
    ) -> None:
        """Stores the settings; ``setup`` reads the text.

        Args:
            corpus: ``stdlib`` (library sources of the running Python); ``site-packages`` (sources of the installed
                packages); the path of a text file, a table, a folder of either, or a pattern, see
                :func:`stagewise.lm.local_files.local_documents`; or the name of a Hugging Face data set.
            vocab_size: tokens of the byte-level BPE tokenizer, 257 or more; cached on disk.
            context: tokens per sequence.
            batch_size: sequences per batch.
            induction_fraction: share of training sequences that are repeated random segments; 0 for pure text.
            min_segment: shortest repeated segment, in tokens.
            max_segment: longest repeated segment, in tokens.
            num_sequences: largest number of training sequences of both kinds; None for all the text.
            num_val: largest number of validation sequences, pure held-out text.
            num_observed: observed sequences of each kind.
            num_sampling: sequences of the sampling set, drawn from the training sequences.
            held_out_fraction: share of documents held out of training.
            text_column: column of a table or a Hugging Face data set.
            config_name: configuration of a Hugging Face data set that has several.
            split: of a Hugging Face data set, or of tables whose names contain splits.
            streaming: read a Hugging Face data set over the network as needed; set ``max_documents`` too.
            max_documents: largest number of rows of tables or of a Hugging Face data set, or of files of packages.
            cache_dir: folder for the tokenizer; ``~/.cache/stagewise`` if None.
            seed: of the mixture, the probe data and the order; the split does not depend on it.
            num_workers: of the loaders.
            classes: groups of the probes over text: names of default classes, or a mapping of names to classes. A class
                is given by conditions, such as ``{pattern: "^ def", followed_by: "^ "}``, or as the name of a default
                class; see :class:`~stagewise.lm.classes.spec.ClassSpec`. ``induction``, ``delimiter`` and ``rest`` if
                None.
            complements: with ``classes``, also a group ``not_<name>`` for each: all other targets of the text.
            rich_class: one of ``classes`` or a default class, such as ``induction_strict``, for the training group
                ``rich_in_<class>``. None for no such group.
            rich_share: share of the training sequences of text that are in this group, between 0 and 1.

        Raises:
            InputError: a setting out of range, or an invalid class.
        """
        super().__init__(
            vocab_size=vocab_size,
            context=context,
            batch_size=batch_size,
            induction_fraction=induction_fraction,
            min_segment=min_segment,
            max_segment=max_segment,
            num_observed=num_observed,
            num_sampling=num_sampling,
            num_val=num_val,
            seed=seed,
            num_workers=num_workers,
        )
        self.corpus, self.num_sequences, self.held_out_fraction = corpus, num_sequences, held_out_fraction
        self.complements = complements
        self._specs = _read_classes(classes, complements)
        self._rich = _rich_spec(rich_class, rich_share, self._specs)
        self.rich_share = rich_share
        self._rich_group: Tensor | None = None
        self._bigrams: BigramTable | None = None
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir is not None else None
        self.hub: dict[str, Any] = {
            "config_name": config_name,
            "split": split,
            "text_column": text_column,
            "streaming": streaming,
            "max_documents": max_documents,
        }
        self._observed = torch.empty(0, context, dtype=torch.int64)

    def setup(self, stage: str | None = None) -> None:
        """Reads, splits, tokenizes and mixes the text, once.

        Raises:
            InputError: the corpus cannot be loaded, or is too small for these settings.
        """
        if self.train_rows is not None:
            return
        train, held = hold_out(load_documents(self.corpus, **self.hub), self.held_out_fraction)
        self.tokenizer = train_tokenizer(train, self.vocab_size, cache_dir=self.cache_dir)
        text = token_rows(train, self.tokenizer, self.context)
        unseen = token_rows(held, self.tokenizer, self.context)
        corpus, share = text, self.induction_fraction
        if self.num_sequences is not None:
            wanted = max(1, round(self.num_sequences * (1 - share)))
            text = text[torch.randperm(len(text), generator=seeded(self.seed, TRAIN))[:wanted]]
        if len(text) < self.batch_size or len(unseen) <= self.num_observed:
            raise InputError(
                f"got corpus {self.corpus!r} with {len(text)} training and {len(unseen)} held-out sequences of "
                f"{self.context} tokens; expected at least {self.batch_size} and {self.num_observed + 1}; give more "
                "text, a smaller batch_size or num_observed, or a larger held_out_fraction"
            )
        if any(spec.max_bigram_frequency is not None for spec in [*self._specs.values(), *self._rich.values()]):
            self._bigrams = BigramTable.count(corpus)
        repeats = round(len(text) * share / (1 - share))
        mixed = torch.cat([text, self._repeats(repeats, TRAIN)[0]]) if repeats else text
        self.train_rows = ServedRows(mixed)
        is_text = torch.arange(len(mixed)) < len(text)
        self.train_kinds = {"induction": ~is_text, "text": is_text}
        order = torch.randperm(len(unseen), generator=seeded(self.seed, OBSERVED))
        self._observed = unseen[order[: self.num_observed]]
        self.val_rows = TokenRows(unseen[order[self.num_observed :][: self.num_val]])

    def training_groups(self) -> dict[str, Tensor]:
        """Returns the kinds of training sequences present, and the rich ones: maps names to bool ``[sample]``.

        These are groups of *sequences*, which an intervention weights; the groups of :meth:`probe_data` are masks over
        loss positions of other, observed sequences.

        Raises:
            InputError: too few sequences have a target of ``rich_class``.
        """
        groups = super().training_groups()
        for name in self._rich:
            if self._rich_group is None:
                self._rich_group = self._rich_sequences(name)
            groups[group_name(name)] = self._rich_group.clone()
        return groups

    def _rich_sequences(self, name: str) -> Tensor:
        assert isinstance(self.train_rows, ServedRows)
        is_text = self.train_kinds["text"]
        ids = self.train_rows.__getitems__(is_text.nonzero()[:, 0].tolist())["input_ids"]
        vocabulary = read_vocabulary(self.tokenizer)
        shares = share_of_targets(
            ids, lambda rows: class_masks(rows, vocabulary, self._rich, bigrams=self._bigrams)[name]
        )
        chosen = torch.zeros_like(is_text)
        chosen[is_text] = richest(shares, self.rich_share, name)
        return chosen

    def _groups_of_text(self, ids: Tensor) -> dict[str, Tensor]:
        """Returns masks ``[sample, position - 1]`` over text alone."""
        if not self._specs:
            return text_groups(ids, self.tokenizer)
        masks = class_masks(ids, self.tokenizer, self._specs, bigrams=self._bigrams, complements=self.complements)
        if self.induction_fraction > 0 and "induction" not in masks:
            masks |= class_masks(ids, self.tokenizer, ["induction"])
        return masks

    def probe_data(self) -> ProbeData:
        """Returns ``num_observed`` sequences of held-out text, and as many of repeated segments if training has any.

        Groups over loss positions are ``induction`` (in text and repeated segments), ``delimiter`` and ``rest`` (in
        text alone), and ``first_copy``, the targets of repeated segments that no earlier copy predicts. Groups without
        a target are omitted.

        With ``classes``, these and their complements, over text alone, replace ``delimiter`` and ``rest``. If there are
        repeated segments, ``induction`` and ``first_copy`` are added as above, even if ``induction`` is not among the
        classes.

        Raises:
            InputError: one of ``classes`` has no target.
        """
        self.setup("fit")
        assert isinstance(self.train_rows, ServedRows)
        ids = self._observed
        groups = self._groups_of_text(ids)
        if self.induction_fraction > 0:
            repeated, targets = self._repeats(self.num_observed, OBSERVED)
            none = torch.zeros_like(targets)
            ids = torch.cat([ids, repeated])
            groups = {
                name: torch.cat([mask, targets if name == "induction" else none]) for name, mask in groups.items()
            }
            groups["first_copy"] = torch.cat([none, ~targets])
        if self._specs:
            refuse_empty(groups)
        size = len(self.train_rows)
        picked = torch.randperm(size, generator=seeded(self.seed, SAMPLING))[: self.num_sampling]
        sampling = self.train_rows.__getitems__(picked.tolist())
        return ProbeData({"input_ids": ids}, dict(sampling), {k: mask for k, mask in groups.items() if mask.any()})
