"""Samples of the observed set whose loss is not finite, and the set without them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from stagewise.batches import Batch, take
from stagewise.errors import InputError

_SHOWN = 10


def not_finite_rows(losses: ArrayLike) -> NDArray[np.int64]:
    """Returns the rows of losses ``[sample(, token)]``, zero where masked, with a NaN or infinity, increasing."""
    values = np.asarray(losses)
    return np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))


def kinds_seen(losses: ArrayLike) -> str:
    """Describes the losses that are not finite: NaN, inf, or both."""
    values = np.asarray(losses)
    seen = {"NaN": np.isnan(values).any(), "inf": np.isinf(values).any()}
    return " and ".join(name for name, there in seen.items() if there)


@dataclass(frozen=True)
class ObservedSet:
    """Observed set, or a subset of it.

    Attributes:
        batch: its samples.
        masks: groups by name, bool ``[sample]`` or ``[sample, token]``; empty for a single group of all losses.
        present: bool ``[sample]`` or ``[sample, token]``, where there is a loss.
        numbers: ``[sample]``, positions in the original set.
        num_given: size of the original set.
    """

    batch: Batch
    masks: Mapping[str, NDArray[Any]]
    present: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    num_given: int

    @property
    def is_whole(self) -> bool:
        """True if no sample was left out."""
        return len(self.numbers) == self.num_given

    def rows(self, samples: Collection[int]) -> NDArray[np.int64]:
        """Returns the positions of samples by their numbers; omits those that are left out."""
        return np.flatnonzero(np.isin(self.numbers, np.asarray(list(samples), dtype=np.int64)))

    def rows_in_order(self, samples: Sequence[int]) -> list[int]:
        """Returns the positions of samples in the given order; omits those that are left out."""
        place = {int(number): row for row, number in enumerate(self.numbers)}
        return [place[sample] for sample in samples if sample in place]

    def without(self, samples: Collection[int]) -> tuple["ObservedSet", tuple[str, ...]]:
        """Returns the set without some samples, and the names of the groups that are left without losses.

        Args:
            samples: numbers in the original set.

        Raises:
            InputError: no losses or no groups would be left.
        """
        kept = np.delete(np.arange(len(self.numbers)), self.rows(samples))
        if len(kept) == len(self.numbers):
            return self, ()
        present = self.present[kept]
        masks = {name: mask[kept] for name, mask in self.masks.items()}
        gone = tuple(name for name, mask in masks.items() if not _meets(mask, present))
        if not present.any() or (masks and len(gone) == len(masks)):
            raise InputError(
                f"got losses that are not finite in samples {listed(samples)} of the observed set; expected finite "
                f"ones in others too: nothing is left to observe{f' of {_named(gone)}' if gone else ''}; look at the "
                "model, these samples and their labels, or mask them out by returning (losses, mask)"
            )
        left = {name: mask for name, mask in masks.items() if name not in gone}
        batch = take(self.batch, torch.from_numpy(kept))
        return ObservedSet(batch, left, present, self.numbers[kept], self.num_given), gone


def _meets(mask: NDArray[Any], present: NDArray[np.bool_]) -> bool:
    """Returns True if a group has a loss."""
    group = mask.astype(bool)
    return bool((group.reshape(*group.shape, *[1] * (present.ndim - group.ndim)) & present).any())


def listed(samples: Collection[int]) -> str:
    """Lists the first ten numbers, and the count of the others."""
    numbers = sorted(int(sample) for sample in samples)
    more = len(numbers) - _SHOWN
    return ", ".join(map(str, numbers[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _named(groups: Sequence[str]) -> str:
    return f"group{'s' if len(groups) > 1 else ''} {', '.join(map(repr, groups))}"


def lost_words(
    samples: Collection[int], groups: Sequence[str], *, seen: str, num_left: int, step: int | None = None
) -> str:
    """Returns the warning about samples that are left out.

    Args:
        samples: their numbers in the original set.
        groups: left without losses.
        seen: description of their losses, see :func:`kinds_seen`.
        num_left: number of remaining samples.
        step: of the probe that found them; None for the check before the first probe.
    """
    when = "before the first probe" if step is None else f"at step {step}"
    also_continue = "" if step is None else ", and so do signal and TracIn"
    also = f"; {_named(groups)}, without a loss now, too" if groups else ""
    plural = "s" if len(samples) > 1 else ""
    return (
        f"stagewise: got a loss that is not finite ({seen}) {when} in {len(samples)} sample{plural} of the observed "
        f"set: {listed(samples)}; left out from here on; influence continues with the other {num_left}{also_continue}"
        f"{also}; check these samples and their labels, or mask them out by returning (losses, mask)"
    )
