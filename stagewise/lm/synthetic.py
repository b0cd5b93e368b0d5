"""Synthetic sequences with and without a need for an induction head."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stagewise.errors import InputError
from stagewise.loading.order import seeded


class BigramChain:
    """Zipfian bigram chain: a small language in which the next token depends only on the last one.

    From each token the chain moves, with probability ``1 - unigram_fraction``, to one of the token's ``num_successors``
    successors (probability proportional to 1 / rank), otherwise to any token by the unigram law (the same, over the
    whole vocabulary). The table has its own seed, so that training, validation and observed sequences share it.

    Attributes:
        transition: ``[token, next token]``, float64, rows sum to 1.
        unigram: ``[token]``, float64; first tokens are drawn from it.
    """

    def __init__(
        self, vocab_size: int = 64, *, num_successors: int = 8, unigram_fraction: float = 0.1, table_seed: int = 0
    ) -> None:
        """Draws the table.

        Args:
            vocab_size: number of tokens, 2 or more.
            num_successors: successors of each token, 1 to ``vocab_size``.
            unigram_fraction: probability, 0 to 1, of a step that ignores the last token.
            table_seed: seed of the table alone.

        Raises:
            InputError: a setting out of range.
        """
        if vocab_size < 2:
            raise InputError(f"got vocab_size {vocab_size}; expected 2 or more")
        if not 1 <= num_successors <= vocab_size:
            raise InputError(f"got num_successors {num_successors}; expected 1 to vocab_size = {vocab_size}")
        if not 0.0 <= unigram_fraction <= 1.0:
            raise InputError(f"got unigram_fraction {unigram_fraction}; expected a probability, 0 to 1")
        generator = seeded(table_seed)
        zipf = 1.0 / torch.arange(1, vocab_size + 1, dtype=torch.float64)
        rank = torch.randperm(vocab_size, generator=generator)
        self.unigram = (zipf / zipf.sum())[rank]
        successors = torch.rand(vocab_size, vocab_size, generator=generator).argsort(dim=1)[:, :num_successors]
        weights = (zipf[:num_successors] / zipf[:num_successors].sum()).expand(vocab_size, -1)
        chosen = torch.zeros(vocab_size, vocab_size, dtype=torch.float64).scatter_(1, successors, weights)
        self.transition = (1.0 - unigram_fraction) * chosen + unigram_fraction * self.unigram
        # All rows in one increasing list: row i covers (i, i + 1], so that one searchsorted advances all sequences.
        rows = self.transition.cumsum(dim=1)
        rows = rows / rows[:, -1:]
        self._steps = (rows + torch.arange(vocab_size, dtype=torch.float64)[:, None]).flatten()
        self._first = self.unigram.cumsum(0) / self.unigram.sum()

    def sample(self, num: int, length: int, generator: torch.Generator) -> Tensor:
        """Draws sequences.

        Args:
            num: number of sequences.
            length: tokens per sequence.
            generator: source of randomness.

        Returns:
            Token ids ``[num, length]``, int64.
        """
        size = len(self.unigram)
        uniform = torch.rand(length, num, dtype=torch.float64, generator=generator)
        ids = torch.empty(length, num, dtype=torch.int64)
        ids[0] = torch.searchsorted(self._first, uniform[0]).clamp_(max=size - 1)
        for position in range(1, length):
            last = ids[position - 1]
            found = torch.searchsorted(self._steps, uniform[position] + last) - last * size
            ids[position] = found.clamp_(0, size - 1)
        return ids.T.contiguous()


@dataclass(frozen=True)
class Repeats:
    """Sequences made of one repeated random segment.

    Attributes:
        ids: ``[num, length]``, int64.
        segment_length: ``[num]``, int64.
        targets: ``[num, length - 1]``, bool: entry k refers to target token k + 1, and is True if this token and the
            preceding one both lie in the second or a later copy, so that a look-up after the earlier copy predicts the
            target. The first token of the second copy does not count, since nothing before it occurred twice.
    """

    ids: Tensor
    segment_length: Tensor
    targets: Tensor


def repeated_segments(
    num: int,
    length: int,
    generator: torch.Generator,
    *,
    vocab_size: int = 64,
    min_segment: int = 4,
    max_segment: int = 16,
) -> Repeats:
    """Draws induction sequences: a uniform random segment, repeated to fill the context.

    Args:
        num: number of sequences.
        length: tokens per sequence.
        generator: source of randomness.
        vocab_size: tokens are uniform on 0 .. ``vocab_size - 1``.
        min_segment: shortest segment, in tokens.
        max_segment: longest segment, in tokens; at most ``length - 2``, so that every sequence has a target.

    Raises:
        InputError: the segment lengths do not fit the sequence.
    """
    if not 1 <= min_segment <= max_segment <= length - 2:
        raise InputError(
            f"got segments of {min_segment} to {max_segment} tokens for sequences of {length}; expected "
            f"1 <= min_segment <= max_segment <= {length - 2}; shorten the segments or lengthen the context"
        )
    segment_length = torch.randint(min_segment, max_segment + 1, (num,), generator=generator)
    segments = torch.randint(vocab_size, (num, max_segment), generator=generator)
    ids = segments.gather(1, torch.arange(length) % segment_length[:, None])
    targets = torch.arange(length - 1) >= segment_length[:, None]
    return Repeats(ids, segment_length, targets)
