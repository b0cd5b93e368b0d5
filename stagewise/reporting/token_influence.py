"""Influence of the tokens of some texts on one of them, and its colours: data for figures and pages."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.errors import InputError, require
from stagewise.influence.sign import UNITS

VISIBLE = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "←", "\u00a0": "⍽"}
"""Characters shown for white space; matplotlib's bundled fonts have all of them."""

_PERCENTILE = 99


@dataclass(frozen=True)
class TokenInfluence:
    """Influence of every token of some texts on the loss of one of their tokens, the query.

    Attributes:
        values: ``[sample, token]``, negative = helpful: more weight on the token lowers the loss of the query. NaN
            where a token has no loss, such as the first of a text.
        tokens: decoded tokens of each sample, as many as ``values`` has.
        sample: of the query.
        token: position of the query in the text.
        limit: absolute value of the full colours, above 0.
        units: of the values and the limit.
    """

    values: NDArray[np.float64]
    tokens: tuple[tuple[str, ...], ...]
    sample: int
    token: int
    limit: float
    units: str

    @classmethod
    def of(
        cls,
        bif: xr.DataArray,
        tokens: Sequence[Sequence[str]],
        query: tuple[int, int],
        *,
        limit: float | None = None,
    ) -> "TokenInfluence":
        """Extracts the row of one token.

        Args:
            bif: ``[sample, token, sample_j, token_j]``, from :func:`stagewise.influence.token_bif.token_bif`.
            tokens: decoded tokens of each sample. If they are one more than its losses, as for a causal language model,
                loss k is that of token k + 1; if as many, that of token k.
            query: its sample, and its position in that sample's ``tokens``.
            limit: of the colours; the 99th percentile of the absolute values if None. The query's influence on itself,
                which exceeds all others, does not count, nor do losses that are masked or do not move (exactly zero).

        Raises:
            InputError: an array with other axes, tokens that do not fit it, a query without a loss, or a limit that is
                not positive.
        """
        if bif.dims != ("sample", "token", "sample_j", "token_j"):
            raise InputError(
                f"got influence over {list(bif.dims)}; expected [sample, token, sample_j, token_j]; use token_bif"
            )
        num_samples, num_losses = bif.shape[:2]
        lengths = sorted({len(row) for row in tokens})
        if len(tokens) != num_samples or lengths not in ([num_losses], [num_losses + 1]):
            raise InputError(
                f"got {len(tokens)} texts of {lengths} tokens for {num_samples} samples of {num_losses} losses; "
                "expected as many texts, each of as many tokens or one more; decode the ids of the observed set one by "
                "one"
            )
        first = lengths[0] - num_losses
        sample, token = query
        if not (0 <= sample < num_samples and first <= token < lengths[0]):
            raise InputError(
                f"got the query {query}; expected a sample from 0 to {num_samples - 1} and a token from {first} to "
                f"{lengths[0] - 1}"
            )
        require(limit is None or limit > 0, "limit", limit, "a number above 0", "leave it out for the 99th percentile")
        values = np.full((num_samples, lengths[0]), np.nan)
        values[:, first:] = bif.values[sample, token - first]
        others = np.abs(values)
        others[sample, token] = 0.0
        moving = others[others > 0]
        found = float(np.percentile(moving, _PERCENTILE)) if len(moving) else 1.0
        kept = tuple(tuple(str(name) for name in row) for row in tokens)
        return cls(values, kept, sample, token, limit or found, str(bif.attrs.get("units", UNITS)))

    @property
    def printed_units(self) -> str:
        """Units in printed form."""
        return self.units.replace("^2", "²")

    @property
    def measure(self) -> str:
        """Quantity whose negative is shown, with its unit."""
        return f"covariance, {self.printed_units}" if self.units == UNITS else "correlation, a pure number"

    @property
    def num_beyond(self) -> int:
        """Number of tokens other than the query that exceed the limit, and are shown in its colours."""
        beyond = np.abs(self.values) > self.limit
        beyond[self.sample, self.token] = False
        return int(beyond.sum())

    def shown_samples(self, samples: Sequence[int] | None) -> list[int]:
        """Returns the samples to show, in order: the requested ones, or all, that of the query first.

        Raises:
            InputError: an unknown sample, or an empty list.
        """
        count = len(self.tokens)
        if samples is None:
            return [self.sample, *(sample for sample in range(count) if sample != self.sample)]
        wrong = [sample for sample in samples if not 0 <= sample < count]
        require(not wrong, "samples", wrong, f"0 to {count - 1}", "choose some that were observed")
        require(len(samples) > 0, "samples", "[]", "at least one", "leave it out for all")
        return list(samples)

    def extremes(self, count: int) -> list[tuple[int, int, float]]:
        """Returns sample, token and value of the ``count`` most helpful and most harmful tokens, most helpful first."""
        values = self.values.copy()
        values[self.sample, self.token] = np.nan
        places = [(int(row), int(column)) for row, column in np.argwhere(np.nan_to_num(values) != 0)]
        ranked = sorted(places, key=lambda place: values[place])
        helpful = [place for place in ranked if values[place] < 0][:count]
        harmful = [place for place in ranked if values[place] > 0][-count:]
        return [(*place, float(values[place])) for place in helpful + harmful]


def visible(token: str) -> str:
    """Makes the white space of a token visible: ``·`` for a space, ``⏎``, ``⇥``; control characters by their code."""
    shown = (
        VISIBLE.get(char) or (char if char.isprintable() else char.encode("unicode_escape").decode()) for char in token
    )
    return "".join(shown) or "∅"


def token_markdown(influence: TokenInfluence, *, count: int = 10, context: int = 4) -> str:
    """Returns the most helpful and the most harmful tokens as a Markdown table, for TensorBoard's Text tab.

    That tab shows no colours; :func:`stagewise.reporting.token_figure.token_figure` has them.

    Args:
        influence: influence to show.
        count: tokens of each sign, at most.
        context: tokens before each that are shown with it.
    """
    query = _quoted(influence, influence.sample, influence.token, context)
    lines = [
        f"Influence on the loss of {query} (sample {influence.sample}, token {influence.token}); "
        "negative = helpful: more weight on a token lowers that loss.",
        "",
        f"| influence ({influence.printed_units}) | | sample | token | text |",
        "|---:|---|---:|---:|---|",
    ]
    for sample, token, value in influence.extremes(count):
        side = "helpful" if value < 0 else "harmful"
        text = _quoted(influence, sample, token, context)
        lines.append(f"| {value:.3g} | {side} | {sample} | {token} | {text} |")
    return "\n".join(lines) + "\n"


def _quoted(influence: TokenInfluence, sample: int, token: int, context: int) -> str:
    """Returns a token in bold with those before it, safe in a Markdown table."""

    def safe(text: str) -> str:
        plain = html.escape(visible(text))
        return "".join(f"&#{ord(char)};" if char in "|*_`[]\\~#" else char for char in plain)

    row = influence.tokens[sample]
    before = "".join(safe(piece) for piece in row[max(0, token - context) : token])
    return f"{before}<b>{safe(row[token])}</b>"


HELPFUL, HARMFUL = (33, 102, 172), (178, 24, 43)
"""Full colours, red green blue."""


def background(share: float) -> tuple[int, int, int]:
    """Returns red, green and blue from 0 to 255, linear from white to the full colours.

    Args:
        share: value over limit, clipped to -1 to 1.
    """
    full, size = (HELPFUL if share < 0 else HARMFUL), min(1.0, abs(share))
    red, green, blue = (round(255 + size * (level - 255)) for level in full)
    return red, green, blue


def is_dark(colour: tuple[int, int, int]) -> bool:
    """Returns True if text on this colour must be white to be legible."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
