"""Samples of the observed set whose loss is not finite: which they are, and the set that is left without them."""

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
    """Rows of ``[sample(, token)]`` losses, zero where masked, in which one is NaN or infinite, increasing."""
    values = np.asarray(losses)
    return np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))


def kinds_seen(losses: ArrayLike) -> str:
    """Describes what is not finite among losses: NaN, inf, or both."""
    values = np.asarray(losses)
    seen = {"NaN": np.isnan(values).any(), "inf": np.isinf(values).any()}
    return " and ".join(name for name, there in seen.items() if there)


@dataclass(frozen=True)
class ObservedSet:
    """An observed set, or what is left of it.

    Attributes:
        batch: its samples.
        masks: groups by name, bool ``[sample]`` or ``[sample, token]``; none for the one of everything.
        present: bool ``[sample]`` or ``[sample, token]``, where there is a loss.
        numbers: ``[sample]``, of each in the set as it was given.
        num_given: samples of that set.
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
        """Positions in this set of samples by their numbers; those that are left out have none."""
        return np.flatnonzero(np.isin(self.numbers, np.asarray(list(samples), dtype=np.int64)))

    def rows_in_order(self, samples: Sequence[int]) -> list[int]:
        """Positions of those of some chosen samples that are left, in the order of the choice."""
        place = {int(number): row for row, number in enumerate(self.numbers)}
        return [place[sample] for sample in samples if sample in place]

    def without(self, samples: Collection[int]) -> tuple["ObservedSet", tuple[str, ...]]:
        """The set without some samples, and the groups that lost all their losses and went with them.

        Args:
            samples: numbers in the set as it was given.

        Raises:
            InputError: nothing would be left: no loss, or none of the groups.
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
    """True if a group has a loss."""
    group = mask.astype(bool)
    return bool((group.reshape(*group.shape, *[1] * (present.ndim - group.ndim)) & present).any())


def listed(samples: Collection[int]) -> str:
    """Numbers in words: the first ten, and how many more there are."""
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
        samples: their numbers in the set as it was given.
        groups: that went with them.
        seen: what their losses are, see :func:`kinds_seen`.
        num_left: samples that are still observed.
        step: of the probe that found them; None for the look before the first probe.
    """
    when = "before the first probe" if step is None else f"at step {step}"
    also_go_on = "" if step is None else ", and so do signal and TracIn"
    also = f"; {_named(groups)}, without a loss now, too" if groups else ""
    plural = "s" if len(samples) > 1 else ""
    return (
        f"stagewise: got a loss that is not finite ({seen}) {when} in {len(samples)} sample{plural} of the observed "
        f"set: {listed(samples)}; left out from here on; influence goes on with the other {num_left}{also_go_on}"
        f"{also}; look at these samples and their labels, or mask them out by returning (losses, mask)"
    )
