"""Specification of one class of target tokens."""

from dataclasses import dataclass

from stagewise.checks.bounds import settle_fields
from stagewise.checks.patterns import compiled
from stagewise.checks.ranges import Fraction
from stagewise.errors import InputError

_PATTERNS = ("pattern", "followed_by", "not_followed_by", "preceded_by", "not_preceded_by")


@dataclass(frozen=True)
class ClassSpec:
    r"""Conditions for membership of a target token in a class; all given conditions must hold.

    Patterns are regular expressions of the package ``regex`` (those of ``re``, and more). They are searched for in the
    string of a single token as it appears in text, e.g. `` def``: anchor them with ``^`` and ``\Z`` (``$`` also matches
    before a final newline). Special tokens belong to no class and match no pattern. The token after the last of a row
    is unknown: neither ``followed_by`` nor ``not_followed_by`` holds there. A pattern that searches a vocabulary for
    longer than 10 seconds is refused.

    Attributes:
        pattern: matches the target token.
        followed_by: matches the next token.
        not_followed_by: does not match the next token.
        preceded_by: matches the preceding token.
        not_preceded_by: does not match the preceding token.
        predicate: dotted path of a function from :class:`~stagewise.lm.classes.token_text.TokenText` to bool
            ``[sample, position - 1]``. Loading it imports, and so runs, its module: read other people's classes first.
        max_bigram_frequency: largest share of the pair (preceding token, target) among the bigrams of a corpus, more
            than 0 and less than 1; needs a :class:`~stagewise.lm.classes.bigrams.BigramTable`.

    Raises:
        InputError: no condition, an invalid regular expression, or a share out of range.
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
