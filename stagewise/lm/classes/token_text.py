"""Rows of tokens with their strings, the input of classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stagewise.checks.patterns import compiled, found_in
from stagewise.errors import InputError
from stagewise.lm.classes.bigrams import BigramTable
from stagewise.lm.classes.vocabulary import Vocabulary
from stagewise.lm.tokens import check_ids


@dataclass(frozen=True, eq=False)
class TokenText:
    """Input of a predicate: whole rows of tokens, with strings and positions, to show the neighbours of each target.

    Entry k of a class refers to target token k + 1: its string is ``strings[i][k + 1]``, that of the preceding token
    ``strings[i][k]``, that of the next ``strings[i][k + 2]``.

    Attributes:
        ids: token ids ``[sample, position]``.
        vocabulary: strings of the token ids.
        bigrams: of a corpus, if known.

    Raises:
        InputError: another shape or type, or an id outside of the vocabulary.
    """

    ids: Tensor
    vocabulary: Vocabulary
    bigrams: BigramTable | None = None

    def __post_init__(self) -> None:
        check_ids(self.ids)
        if not self.ids.numel():
            raise InputError("got no row of token ids; expected one or more")
        lowest, highest = int(self.ids.min()), int(self.ids.max())
        if lowest < 0 or highest >= len(self.vocabulary):
            raise InputError(
                f"got token ids from {lowest} to {highest}; expected 0 to {len(self.vocabulary) - 1}, those of the "
                "tokenizer; give the tokenizer that made them"
            )

    @property
    def strings(self) -> list[list[str]]:
        """Strings of the tokens as they appear in text, ``[sample][position]``."""
        return [[self.vocabulary.strings[index] for index in row] for row in self.ids.tolist()]

    @property
    def positions(self) -> Tensor:
        """Position of each target in its row, 1 or more, ``[sample, position - 1]``."""
        return torch.arange(1, self.ids.shape[1], device=self.ids.device).expand(len(self.ids), -1)

    @property
    def special(self) -> Tensor:
        """Mask of the special tokens, ``[sample, position]``, bool."""
        return self.vocabulary.special.to(self.ids.device)[self.ids.long()]

    def matches(self, pattern: str) -> Tensor:
        """Marks tokens whose string contains a match of a regular expression; special tokens match nothing.

        Args:
            pattern: regular expression.

        Returns:
            ``[sample, position]``, bool.

        Raises:
            InputError: an invalid regular expression, or one that searches for longer than 10 seconds.
        """
        known = compiled(pattern, expected="a regular expression", advice="escape brackets and the like")
        # Each distinct token is searched once: a batch holds only a few of a large vocabulary.
        kinds, place = self.ids.unique(return_inverse=True)
        found = found_in(known, (self.vocabulary.strings[index] for index in kinds.tolist()))
        return torch.tensor(found, device=self.ids.device)[place] & ~self.special
