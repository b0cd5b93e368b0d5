"""Table of the default classes."""

from collections.abc import Mapping
from types import MappingProxyType

from stagewise.lm.classes.spec import ClassSpec

_TAG = r"</?[A-Za-z][A-Za-z0-9]*/?>?"
_INDUCTION = "stagewise.lm.classes.predicates.induction"

# \Z, not $, which would allow a final newline. The patterns are our own: we know of no exact published ones.
DEFAULT_CLASSES: Mapping[str, ClassSpec] = MappingProxyType(
    {
        "word_start": ClassSpec(pattern=r"^ [A-Za-z]+\Z"),
        "word_part": ClassSpec(pattern=r"^[A-Za-z]+\Z", followed_by=r"^[A-Za-z]+\Z"),
        "word_end": ClassSpec(pattern=r"^[A-Za-z]+\Z", not_followed_by=r"^[A-Za-z]"),
        # Straight quotes both open and close, and ’ is also an apostrophe: only unambiguous quotes count.
        "left_delimiter": ClassSpec(pattern=r"^ ?[(\[{<“«]+[\"'`]*\Z"),
        "right_delimiter": ClassSpec(pattern=r"^ ?[\"'`]*[)\]}>”»]+[,;:.]*[\r\n]*\Z"),
        # Whitespace with a newline or a tab; Markdown's signs; the beginning or the whole of a tag.
        "formatting": ClassSpec(
            pattern=rf"^\s*[\n\r\t]\s*\Z|^ ?(#+|\*{{2,}}|`{{3,}}|~{{3,}}|-{{3,}}|={{3,}}|</|/>|{_TAG})[\r\n]*\Z"
        ),
        "spacing": ClassSpec(pattern=r"^ {2,}\Z"),
        "numeric": ClassSpec(pattern=r"^ ?[0-9]+\Z"),
        "induction": ClassSpec(predicate=_INDUCTION),
        "induction_strict": ClassSpec(predicate=_INDUCTION, max_bigram_frequency=1e-4),
        "repeated_other_follower": ClassSpec(predicate="stagewise.lm.classes.predicates.repeated_other_follower"),
    }
)
"""Maps names to classes. ``induction_strict`` needs a table of bigrams."""
