"""Data set whose batches contain the groups of their samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from stagewise.checks.bounds import check_arguments, shown
from stagewise.checks.group_names import check_group_names
from stagewise.errors import InputError, require

GROUPS_ENTRY = "groups"
"""Key of the batch entry that holds the groups of its samples."""


def _mask(name: str, given: ArrayLike) -> Tensor:
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"got group {name!r} as {shown(given)}; expected torch.bool, one entry a sample") from error


class GroupedRows(Dataset):
    """Data set of mappings whose batches have the additional entry ``"groups"``: names to bool ``[sample, ...]``.

    Interventions by loss weights require this entry; ``CausalLM`` reads it.
    """

    def __init__(self, dataset: Dataset, groups: Mapping[str, ArrayLike]) -> None:
        """Adds groups to a data set.

        Args:
            dataset: map-style, with mappings as samples. Its ``__getitems__``, if present, must return a whole batch.
            groups: maps names to bool ``[sample]`` or ``[sample, token]``.

        Raises:
            InputError: groups do not fit the data set.
        """
        check_arguments("GroupedRows", GroupedRows.__init__, locals(), leave=["dataset"])
        sized = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        require(sized, "dataset", shown(dataset), "a map-style data set, with a length and samples by index", "list it")
        self._dataset = dataset
        check_group_names(groups)
        self._groups: dict[str, Tensor] = {name: _mask(name, mask) for name, mask in groups.items()}
        for name, mask in self._groups.items():
            if mask.dtype != torch.bool or mask.dim() == 0 or len(mask) != len(self):
                raise InputError(
                    f"got group {name!r} as {mask.dtype} {list(mask.shape)}; expected torch.bool with one entry for "
                    f"each of {len(self)} samples"
                )

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._dataset[index], GROUPS_ENTRY: {name: mask[index] for name, mask in self._groups.items()}}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        chosen = list(indices)
        if hasattr(self._dataset, "__getitems__"):
            batch = self._dataset.__getitems__(chosen)
        else:
            batch = default_collate([self._dataset[index] for index in chosen])
        return {**batch, GROUPS_ENTRY: {name: mask[chosen] for name, mask in self._groups.items()}}
