"""Common part of the data modules, and the synthetic mixture of background and induction sequences."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stagewise.checks.bounds import check_arguments
from stagewise.checks.ranges import PositiveInt, at_least, within
from stagewise.errors import InputError
from stagewise.interventions.grouped_rows import GroupedRows
from stagewise.interventions.loader import ReweightedLoader
from stagewise.lm.synthetic import BigramChain, repeated_segments
from stagewise.loading.loader import EpochLoader, ResumableLoader
from stagewise.loading.order import seeded
from stagewise.sampling.data import ProbeData

TRAIN, VALIDATION, OBSERVED, SAMPLING = 1, 2, 3, 4
"""Streams of the data seed: draws from one do not depend on how much is drawn from another."""

_ALL = {"text", "background"}
"""Kinds of sequences other than groups to weight; alone, they make up the whole data set."""


class TokenRows(Dataset):
    """Sequences as a map-style data set that returns a whole batch at once: ``{"input_ids": [batch, position]}``."""

    def __init__(self, ids: Tensor) -> None:
        """Stores token ids ``[sample, position]``."""
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[index]}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {"input_ids": self.ids[list(indices)]}


class SequenceData(pl.LightningDataModule):
    """Base class of the data modules for language models: loaders and settings of the mixture.

    Subclasses set ``train_rows``, ``val_rows`` and ``train_kinds`` in ``setup`` and implement ``probe_data``.

    Attributes:
        vocab_size: token ids are in 0 .. ``vocab_size - 1``.
        context: tokens per sequence.
        train_rows: training sequences, available after ``setup``.
        val_rows: validation sequences, available after ``setup``.
        train_kinds: maps names of kinds of training sequences to bool ``[sample]``, available after ``setup``.
    """

    train_rows: Dataset | None = None
    val_rows: Dataset | None = None
    train_kinds: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(
        self,
        *,
        vocab_size: int,
        context: Annotated[int, at_least(2)],
        batch_size: PositiveInt,
        induction_fraction: Annotated[float, within(0, 1, with_high=False)],
        min_segment: int,
        max_segment: int,
        num_observed: PositiveInt,
        num_sampling: PositiveInt,
        num_val: PositiveInt,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        check_arguments("SequenceData", SequenceData.__init__, locals())
        self.vocab_size, self.context, self.batch_size = vocab_size, context, batch_size
        self.induction_fraction = induction_fraction
        self.min_segment, self.max_segment = min_segment, max_segment
        self.num_observed, self.num_sampling, self.num_val = num_observed, num_sampling, num_val
        self.seed, self.num_workers = seed, num_workers
        if induction_fraction > 0:
            self._repeats(0, OBSERVED)

    def _repeats(self, num: int, stream: int) -> tuple[Tensor, Tensor]:
        """Draws induction sequences ``[num, context]`` of a stream, and their exact targets ``[num, context - 1]``."""
        drawn = repeated_segments(
            num,
            self.context,
            seeded(self.seed, 100 + stream),
            vocab_size=self.vocab_size,
            min_segment=self.min_segment,
            max_segment=self.max_segment,
        )
        return drawn.ids, drawn.targets

    def training_groups(self) -> dict[str, Tensor]:
        """Returns the kinds of training sequences present: maps names to bool ``[sample]``.

        These are groups of *sequences*, which an intervention weights; the groups of :meth:`probe_data` are masks over
        loss positions of other, observed sequences.
        """
        if self.train_rows is None:
            self.setup("fit")
        return {name: mask.clone() for name, mask in self.train_kinds.items() if mask.any()}

    def train_dataloader(self) -> EpochLoader:
        """Returns a loader of shuffled batches ``{"input_ids": [batch_size, context]}`` that resumes in mid-epoch.

        With groups to weight (induction sequences, or those rich in a class) it is a ``ReweightedLoader`` over
        :meth:`training_groups`. Its batches also have ``"groups"``, which maps names to bool ``[batch_size]``; without
        weights it yields the same sequences as ``ResumableLoader``.
        """
        groups = self.training_groups()
        assert self.train_rows is not None
        if groups.keys() <= _ALL:
            return ResumableLoader(self.train_rows, self.batch_size, seed=self.seed, num_workers=self.num_workers)
        rows = GroupedRows(self.train_rows, groups)
        return ReweightedLoader(rows, groups, self.batch_size, seed=self.seed, num_workers=self.num_workers)

    def val_dataloader(self) -> ResumableLoader:
        """Returns a loader of validation batches in a fixed order."""
        if self.val_rows is None:
            self.setup("validate")
        assert self.val_rows is not None
        return ResumableLoader(
            self.val_rows, self.batch_size, shuffle=False, drop_last=False, num_workers=self.num_workers
        )

    def probe_data(self) -> ProbeData:
        """Returns the fixed data of all probes."""
        raise NotImplementedError


class SyntheticData(SequenceData):
    """Mixture of background sequences (a Zipfian bigram chain) and induction sequences (repeated random segments).

    Training groups: ``induction`` and ``background``.
    """

    def __init__(
        self,
        vocab_size: int = 64,
        context: int = 32,
        batch_size: int = 32,
        induction_fraction: float = 0.25,
        min_segment: int = 4,
        max_segment: int = 16,
        num_successors: int = 8,
        unigram_fraction: float = 0.1,
        table_seed: int = 0,
        num_sequences: int = 64_000,
        num_val: int = 512,
        num_observed: int = 32,
        num_sampling: int = 1024,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        """Stores the settings; ``setup`` draws the mixture.

        Args:
            vocab_size: number of tokens.
            context: tokens per sequence.
            batch_size: sequences per batch.
            induction_fraction: probability that a sequence is an induction sequence; 0 for none.
            min_segment: shortest repeated segment, in tokens.
            max_segment: longest repeated segment, in tokens.
            num_successors: successors of each token in the chain.
            unigram_fraction: probability of a step of the chain that ignores the last token.
            table_seed: seed of the chain's transition table, independent of ``seed``.
            num_sequences: training sequences; with at least ``max_steps * batch_size``, none is seen twice.
            num_val: validation sequences of the same mixture.
            num_observed: observed sequences of each kind.
            num_sampling: sequences of the sampling set, newly drawn from the same mixture.
            seed: of all draws except the table.
            num_workers: of the loaders.

        Raises:
            InputError: a setting out of range.
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
        if num_sequences < batch_size:
            raise InputError(f"got num_sequences {num_sequences}; expected at least one batch of {batch_size}")
        self.num_sequences = num_sequences
        self.chain = BigramChain(
            vocab_size, num_successors=num_successors, unigram_fraction=unigram_fraction, table_seed=table_seed
        )

    def _chosen(self, num: int, generator: torch.Generator) -> Tensor:
        """Draws which sequences of a mixture are induction sequences, bool ``[num]``."""
        return torch.rand(num, generator=generator) < self.induction_fraction

    def _mixture(self, num: int, stream: int) -> Tensor:
        generator = seeded(self.seed, stream)
        chosen = self._chosen(num, generator)
        ids = self.chain.sample(num, self.context, generator)
        if chosen.any():
            ids[chosen] = self._repeats(int(chosen.sum()), stream)[0]
        return ids

    def setup(self, stage: str | None = None) -> None:
        """Draws training and validation sequences, once."""
        if self.train_rows is None:
            self.train_rows = TokenRows(self._mixture(self.num_sequences, TRAIN))
            self.val_rows = TokenRows(self._mixture(self.num_val, VALIDATION))
            chosen = self._chosen(self.num_sequences, seeded(self.seed, TRAIN))
            self.train_kinds = {"induction": chosen, "background": ~chosen}

    def probe_data(self) -> ProbeData:
        """Returns ``num_observed`` background sequences, and as many induction sequences if the mixture has any.

        Groups over loss positions are ``background``, all targets of background sequences; ``induction``, the targets
        of induction sequences that an earlier copy predicts; and ``first_copy``, their other targets: a control with
        the same tokens in the same sequences.
        """
        ids = self.chain.sample(self.num_observed, self.context, seeded(self.seed, OBSERVED))
        background = torch.ones(self.num_observed, self.context - 1, dtype=torch.bool)
        groups = {"background": background}
        if self.induction_fraction > 0:
            repeated, targets = self._repeats(self.num_observed, OBSERVED)
            ids = torch.cat([ids, repeated])
            none = torch.zeros_like(background)
            groups = {
                "induction": torch.cat([none, targets]),
                "background": torch.cat([background, none]),
                "first_copy": torch.cat([none, ~targets]),
            }
        return ProbeData({"input_ids": ids}, {"input_ids": self._mixture(self.num_sampling, SAMPLING)}, groups)
