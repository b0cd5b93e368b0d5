"""Counts of the pairs of neighbouring tokens in a corpus."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stagewise.errors import InputError
from stagewise.lm.tokens import check_ids

# Larger than any vocabulary, and its square fits in int64.
_BASE = 2**31


def _keys(ids: Tensor) -> Tensor:
    """Encodes each pair of neighbouring tokens as one number, ``[sample, position - 1]``."""
    check_ids(ids)
    wide = ids.long()
    return wide[:, :-1] * _BASE + wide[:, 1:]


@dataclass(frozen=True, eq=False)
class BigramTable:
    """Counts of the bigrams of a corpus.

    Attributes:
        keys: int64 ``[bigram]``, ascending; first token times 2^31 plus second token.
        counts: int64 ``[bigram]``.
    """

    keys: Tensor
    counts: Tensor

    @classmethod
    def count(cls, ids: Tensor) -> "BigramTable":
        """Counts pairs within rows; pairs across rows do not count.

        Args:
            ids: token ids of the corpus ``[sample, position]``.

        Raises:
            InputError: another shape or type, or no row.
        """
        keys, counts = _keys(ids).unique(return_counts=True)
        if not len(keys):
            raise InputError("got a corpus without bigrams; expected one row of token ids or more")
        return cls(keys, counts)

    def frequency(self, ids: Tensor) -> Tensor:
        """Returns the relative frequency in the corpus of each bigram of some rows.

        Args:
            ids: token ids ``[sample, position]``.

        Returns:
            ``[sample, position - 1]``, float64: entry k is the share of (x_k, x_{k+1}) among all bigrams of the corpus;
            0 for a bigram not in the corpus.
        """
        wanted = _keys(ids)
        table = self.keys.to(wanted.device)
        place = torch.searchsorted(table, wanted).clamp(max=len(table) - 1)
        counts = self.counts.to(wanted.device)[place] * (table[place] == wanted)
        return counts.double() / self.counts.sum().item()
