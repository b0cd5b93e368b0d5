"""Most helpful and most harmful samples and pairs of samples of a run, by name, as tables."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.checks.group_names import markdown_text
from stagewise.influence.chain_counts import interval_factor
from stagewise.influence.stored_matrices import sample_matrix
from stagewise.runs.common_mode import common_mode_of_samples
from stagewise.runs.sample_names import SampleNames
from stagewise.runs.top_samples import SIDES, leading_samples, top_samples

NEEDED = (
    "sample_bif",
    "sample_bif_se",
    "bif",
    "bif_se",
    "bif_within",
    "bif_within_se",
    "chains_common",
    "chains_dropped",
    "equilibrated",
    "reference_equilibrated",
    "mask",
)
"""Variables needed for the tables, in addition to coordinates."""

_MOST = 5
_CONFIDENCE = 0.95
_INTERVAL = "95 % interval, nats²"
_UNNAMED = " of the observed set"
"""End of a sample's name if only its number is known."""

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SampleTables:
    """Extremes of one probe.

    Attributes:
        step: of the probe.
        words: description of the tables, and the effect of chance alone.
        notes: unit of a sample's influence for token losses, and the common mode, if any.
        samples: a head and rows: samples by their influence on the mean loss of all others; empty if not stored.
        pairs: a head and rows; empty if the matrices are not stored.
    """

    step: int
    words: str
    notes: tuple[str, ...]
    samples: Rows
    pairs: Rows

    def markdown(self) -> str:
        """Returns the tables as Markdown, with words and notes."""
        return "\n\n".join([self.words, *self.notes, *(_markdown(rows) for rows in (self.samples, self.pairs) if rows)])


def sample_tables(run: xr.Dataset) -> SampleTables | None:
    """Names the samples and pairs with the largest influence within phases, at the last probe in equilibrium.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, or with :data:`NEEDED` of it.

    Returns:
        At most five of each sign, called unresolved if the interval contains zero; a sign without any has a row that
        says so. None if no probe with two chains is in equilibrium, or no influence between samples is stored.
    """
    sure = np.flatnonzero(np.broadcast_to(np.isfinite(interval_factor(run).values), run["step"].shape))
    if not len(sure) or run.sizes.get("sample", 0) < 2:
        return None
    step, names = int(run["step"].values[sure[-1]]), SampleNames(run)
    probe = run.sel(step=step)
    factor = float(interval_factor(probe, _CONFIDENCE))
    numbers = run["sample"].values if "sample" in run.coords else np.arange(run.sizes["sample"])
    samples: Rows = ()
    pairs: Rows = ()
    counted = []
    if {"sample_bif", "sample_bif_se"} <= set(run):
        found = leading_samples(run, step, _MOST, confidence=_CONFIDENCE)
        head = ("", "influence on the mean loss of all others, nats²", _INTERVAL, "sample")
        samples = (head, *_rows(found, numbers, names, ("sample",), "sample"))
        values, errors = (probe[name].sel(part="within").values for name in ("sample_bif", "sample_bif_se"))
        counted.append(_chance(values, errors, factor, "samples"))
    if {"bif", "bif_within"} & set(run):
        found = top_samples(run, step, _MOST, confidence=_CONFIDENCE)
        pair_head = ("", "influence on each other, nats²", _INTERVAL, "pair")
        pairs = (pair_head, *_rows(found, numbers, names, ("sample", "sample_j"), "pair"))
        upper = np.triu_indices(len(numbers), k=1)
        matrix, error = (sample_matrix(probe, error=error).values[upper] for error in (False, True))
        counted.append(_chance(matrix, error, factor, "pairs"))
    if not counted:
        return None
    words = (
        f"At step {step:,}, the last probe in equilibrium, within phases. **Negative = helpful**: more weight on a "
        "sample lowers the loss of the others. These are the extremes of many, each far noisier than a group: chance "
        f"alone produces some of them. {'. '.join(counted)}. *Unresolved*: not told from zero, which the interval "
        "holds. Read groups first."
    )
    common = common_mode_of_samples(probe)
    notes = (token_unit(probe), None if common is None else common.words())
    return SampleTables(step, words, tuple(note for note in notes if note is not None), samples, pairs)


def token_unit(probe: xr.Dataset) -> str | None:
    """Explains the loss of a sample for token losses, and the consequence for its influence.

    Args:
        probe: one step of what :func:`stagewise.runs.open.open_run` returns.

    Returns:
        None with one loss per sample, or if the losses are unknown.
    """
    if "mask" not in probe or "token" not in probe["mask"].dims:
        return None
    counts = probe["mask"].values.astype(bool).sum(axis=-1)
    fewest, most = int(counts.min()), int(counts.max())
    each = f"{most:,} each" if fewest == most else f"{fewest:,} to {most:,}"
    return (
        f"**The loss of a sample is the sum over its tokens** ({each}), not their mean, so that longer samples weigh "
        "more. Between groups influence is that of single tokens, a mean over pairs: far smaller numbers, which are "
        "not to be compared with these."
    )


def no_ranking_words(run: xr.Dataset) -> str:
    """Explains why :func:`sample_tables` returns None.

    Args:
        run: as for :func:`sample_tables`.
    """
    if not {"sample_bif", "bif", "bif_within"} & set(run):
        return "No influence between samples is stored: set `probe.sample_matrices: within`."
    if run.sizes.get("sample", 0) < 2:
        return "A single sample has no influence on others: observe more."
    return "No ranking of samples: it takes a probe in equilibrium with two chains or more, see the flags."


def _rows(found: xr.Dataset, numbers: NDArray[np.int64], names: SampleNames, columns: Sequence[str], what: str) -> Rows:
    rows = []
    for side in SIDES:
        chosen = found.sel(side=side)
        if int(chosen[columns[0]].values[0]) < 0:
            rows.append((side, "-", "-", f"no {side} {what} at this probe"))
        for rank in range(found.sizes["rank"]):
            places = [int(chosen[column].values[rank]) for column in columns]
            if places[0] < 0:
                continue
            value, low, high = (float(chosen[name].values[rank]) for name in ("value", "low", "high"))
            named = [markdown_text(names(int(numbers[place]))) for place in places]
            if all(item.endswith(_UNNAMED) for item in named):
                named[:-1] = [item.removesuffix(_UNNAMED) for item in named[:-1]]
            # Numbers first: a narrow page cuts off long texts.
            label = f"unresolved ({side} side)" if low <= 0 <= high else side
            rows.append((label, f"{value:+.2e}", f"{low:+.2e} to {high:+.2e}", " and ".join(named)))
    return tuple(rows)


def _chance(values: NDArray[np.float64], errors: NDArray[np.float64], factor: float, what: str) -> str:
    """Describes the number of intervals without zero, and the number expected by chance."""
    known = np.isfinite(values) & np.isfinite(errors)
    outside = int((np.abs(values[known]) > factor * errors[known]).sum())
    total = int(known.sum())
    return (
        f"Of {total:,} {what}, {outside:,} have a {100 * _CONFIDENCE:g} % interval without zero; about "
        f"{(1 - _CONFIDENCE) * total:,.0f} would by chance"
    )


def _markdown(rows: Rows) -> str:
    rule = tuple("---" for _ in rows[0])
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))
