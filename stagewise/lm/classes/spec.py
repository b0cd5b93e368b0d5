"""One class of target tokens, as data."""

from dataclasses import dataclass

from stagewise.checks.bounds import settle_fields
from stagewise.checks.patterns import compiled
from stagewise.checks.ranges import Fraction
from stagewise.errors import InputError

_PATTERNS = ("pattern", "followed_by", "not_followed_by", "preceded_by", "not_preceded_by")


@dataclass(frozen=True)
class ClassSpec:
    r"""Conditions for a target token to be in a class; all that are given must hold.

    Patterns are regular expressions, as the package ``regex`` reads them (as ``re`` does, and more), searched for in
    the string of one token as it stands in text, say `` def``: anchor
    them with ``^`` and ``\Z`` (``$`` also holds before a last newline). Special tokens belong to no class and match no
    pattern. What follows the last token of a row is not known, so it is neither ``followed_by`` nor
    ``not_followed_by`` anything. A pattern that searches a vocabulary for longer than 10 seconds is refused.

    Attributes:
        pattern: of the target token.
        followed_by: of the token after it.
        not_followed_by: a pattern that the token after it does not have.
        preceded_by: of the token before it.
        not_preceded_by: a pattern that the token before it does not have.
        predicate: dotted path of a function from :class:`~stagewise.lm.classes.token_text.TokenText` to bool
            ``[sample, position - 1]``. Its module is imported, which runs the module: read classes of others first.
        max_bigram_frequency: the pair of the token before it and the target makes up at most this share of the bigrams
            of a corpus, more than 0, less than 1; needs a
            :class:`~stagewise.lm.classes.bigrams.BigramTable`.

    Raises:
        InputError: no condition, a pattern that is no regular expression, or a share out of range.
    """

    pattern: str | None = None
    followed_by: str | None = None
    not_followed_by: str | None = None
    preceded_by: str | None = None
    not_preceded_by: str | None = None
    predicate: str | None = None
    max_bigram_frequency: Fraction | None = None

    def __post_init__(self) -> None:
        settle_fields(self)
        if all(value is None for value in vars(self).values()):
            raise InputError(f"got a class without a condition; expected one or more of {', '.join(vars(self))}")
        for name in _PATTERNS:
            pattern = getattr(self, name)
            if pattern is not None:
                advice = "escape brackets and the like with a backslash"
                compiled(pattern, name=name, expected="a regular expression", advice=advice)
