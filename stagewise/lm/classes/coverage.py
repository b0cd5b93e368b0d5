"""Coverage of targets or samples by classes, and overlap of classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stagewise.errors import InputError
from stagewise.lm.classes.reading import complement_name

_MOST_PAIRED = 64
"""Largest number of classes for which the table of overlaps is shown."""

_CHUNK = 4096
"""Number of targets multiplied at a time, which bounds memory."""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    safe = [[cell.replace("|", "\\|") for cell in row] for row in [header, rule, *rows]]
    return "\n".join("| " + " | ".join(row) + " |" for row in safe)


@dataclass(frozen=True, eq=False)
class Coverage:
    """Counts of targets by class, or of samples if classes are sets of whole samples.

    Attributes:
        names: the classes, in order, without complements.
        num_targets: number of targets considered.
        overlap: int64 ``[class, class]``: number of targets in both; on the diagonal, in the class.
        in_none: number of targets in no class.
        in_several: number of targets in two or more classes.
        unit: unit of the counts, ``targets`` or ``samples``.
    """

    names: tuple[str, ...]
    num_targets: int
    overlap: NDArray[np.int64]
    in_none: int
    in_several: int
    unit: str = "targets"

    @property
    def shares(self) -> dict[str, float]:
        """Share of the targets in each class, 0 to 1; the sum over overlapping classes exceeds their coverage."""
        return {name: int(self.overlap[row, row]) / self.num_targets for row, name in enumerate(self.names)}

    def markdown(self) -> str:
        """Returns two Markdown tables: counts and shares of targets, and numbers of targets in each pair of classes.

        The second is omitted for more than 64 classes.
        """
        counts = {name: int(self.overlap[row, row]) for row, name in enumerate(self.names)}
        counts |= {"*in none*": self.in_none, "*in several*": self.in_several, f"*all {self.unit}*": self.num_targets}
        first = [[name, str(count), f"{count / self.num_targets:.1%}"] for name, count in counts.items()]
        kind = "class" if self.unit == "targets" else "group"
        tables = [_table([kind, self.unit, "share"], first)]
        if len(self.names) <= _MOST_PAIRED:
            second = [[name, *map(str, row)] for name, row in zip(self.names, self.overlap.tolist(), strict=True)]
            tables.append(_table(["in both", *self.names], second))
        return "\n\n".join(tables)


def class_coverage(groups: Mapping[str, Tensor], *, among: Tensor | None = None) -> Coverage:
    """Computes the coverage and overlap of classes.

    A mask ``not_<name>`` is ignored if there is ``<name>``: with the complement every target would have a class.

    Args:
        groups: maps names to bool ``[sample, position - 1]``, e.g. from
            :func:`~stagewise.lm.classes.groups.class_groups`; or to bool ``[sample]``, to count samples.
        among: bool of the same shape, True for targets to consider, e.g. without padding; all if None.

    Raises:
        InputError: no class, masks of different shapes, or no target.
    """
    complements = {complement_name(name) for name in groups}
    masks = {name: mask for name, mask in groups.items() if name not in complements}
    if not masks:
        raise InputError("got no class; expected one or more")
    shapes = {tuple(mask.shape) for mask in masks.values()} | (set() if among is None else {tuple(among.shape)})
    if len(shapes) > 1:
        raise InputError(
            f"got masks of shapes {sorted(shapes)}; expected one shape, [sample, position - 1] or [sample]"
        )
    stacked = torch.stack([mask.flatten() for mask in masks.values()])
    if among is not None:
        stacked = stacked[:, among.flatten().to(stacked.device)]
    if not stacked.shape[1]:
        raise InputError("got no target; expected one or more")
    held = stacked.cpu().numpy()
    number = held.sum(axis=0)
    overlap = np.zeros((len(masks), len(masks)))
    for part in np.array_split(held, held.shape[1] // _CHUNK + 1, axis=1):
        counts = part.astype(np.float64)  # exact, and far faster than products of integers
        overlap += counts @ counts.T
    return Coverage(
        names=tuple(masks),
        num_targets=held.shape[1],
        overlap=overlap.astype(np.int64),
        in_none=int((number == 0).sum()),
        in_several=int((number > 1).sum()),
        unit="samples" if all(mask.dim() == 1 for mask in masks.values()) else "targets",
    )
