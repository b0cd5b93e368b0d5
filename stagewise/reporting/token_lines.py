"""Texts of tokens as lines of a fixed number of columns, and excerpts that fit a figure."""

from collections.abc import Sequence
from dataclasses import dataclass

from stagewise.reporting.token_influence import TokenInfluence, visible

_LEAST = 6
"""Fewest lines of a cut text; with less room it is left out."""


@dataclass(frozen=True)
class Piece:
    """Token, or the part of it in one line.

    Attributes:
        token: position in the text.
        column: of its first character.
        text: with white space made visible.
    """

    token: int
    column: int
    text: str


@dataclass(frozen=True)
class Excerpt:
    """Neighbouring lines of the text of a sample.

    Attributes:
        sample: of the text.
        lines: pieces of each line.
        first: number of lines before these.
        total: number of lines of the text.
    """

    sample: int
    lines: tuple[tuple[Piece, ...], ...]
    first: int
    total: int

    @property
    def is_whole(self) -> bool:
        """True if no line is left out."""
        return len(self.lines) == self.total


def wrapped(tokens: Sequence[str], columns: int) -> list[tuple[Piece, ...]]:
    """Returns lines of a text; each ends after the last newline of a token, or where the next token does not fit.

    Args:
        tokens: decoded tokens.
        columns: maximal number of characters in a line. A longer token continues in the next line.
    """
    lines: list[list[Piece]] = [[]]
    column = 0
    for token, text in enumerate(tokens):
        before, newline, after = text.rpartition("\n")
        for part in (before + newline, after) if newline else (text,):
            if newline and not part:
                continue
            rest = visible(part)
            if column and column + len(rest) > columns:
                lines.append([])
                column = 0
            while rest:
                if column == columns:
                    lines.append([])
                    column = 0
                lines[-1].append(Piece(token, column, rest[: columns - column]))
                rest = rest[columns - column :]
                column += len(lines[-1][-1].text)
            if part.endswith("\n"):
                lines.append([])
                column = 0
    return [tuple(line) for line in lines if line]


def excerpts(influence: TokenInfluence, samples: Sequence[int], *, columns: int, room: int) -> list[Excerpt]:
    """Returns as many texts as fit, in this order; the last may be cut short.

    The text of the query, if it does not fit, is cut around the query. It leaves half of the room to the other texts,
    which say more.

    Args:
        influence: influence to show.
        samples: requested texts.
        columns: maximal number of characters in a line.
        room: lines of all texts, with one more for the heading of each.
    """
    texts = [wrapped(influence.tokens[sample], columns) for sample in samples]
    found: list[Excerpt] = []
    left = room
    for place, (sample, lines) in enumerate(zip(samples, texts, strict=True)):
        allowed, first = left - 1, 0
        if sample == influence.sample:
            others = sum(1 + len(text) for text in texts[place + 1 :])
            allowed = min(allowed, max(room // 2, allowed - others))
        if len(lines) > allowed:
            if found and allowed < _LEAST:
                break
            if sample == influence.sample:
                at = next(row for row, line in enumerate(lines) if line[-1].token >= influence.token)
                first = min(max(0, at - allowed // 2), len(lines) - allowed)
        kept = tuple(lines[first : first + allowed])
        found.append(Excerpt(sample, kept, first, len(lines)))
        left -= 1 + len(kept)
    return found
