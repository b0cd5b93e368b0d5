"""Lightning data module of the toy: the whole hierarchy in every batch."""

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stagewise.errors import InputError
from stagewise.sampling.data import ProbeData
from stagewise.toy.hierarchy import Hierarchy


class _WholeSet(Dataset):
    """Data set that repeats one full batch, so that an epoch is a whole run instead of a step."""

    def __init__(self, batch: tuple[Tensor, Tensor], num_steps: int) -> None:
        self._batch = batch
        self._num_steps = num_steps

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._batch


class HierarchyData(pl.LightningDataModule):
    """One-hot items with the features of a tree; probes observe every item, and each item is a group of its own.

    Attributes:
        hierarchy: the tree.
        batch: items ``[item, item]`` (one-hot) and features ``[item, property]``, float64.
    """

    def __init__(self, hierarchy: Hierarchy = Hierarchy(), num_steps: int = 3800) -> None:
        """Builds the batch, without any randomness.

        Args:
            hierarchy: the tree.
            num_steps: batches per epoch.

        Raises:
            InputError: ``num_steps`` below 1.
        """
        super().__init__()
        if num_steps < 1:
            raise InputError(f"got num_steps={num_steps}; expected 1 or more; use the Trainer's max_steps")
        self.hierarchy = hierarchy
        self.num_steps = num_steps
        features = torch.from_numpy(hierarchy.features.copy())
        self.batch = (torch.eye(len(features), dtype=features.dtype), features)

    def train_dataloader(self) -> DataLoader:
        """Returns a loader of ``num_steps`` batches, each the whole set."""
        return DataLoader(_WholeSet(self.batch, self.num_steps), batch_size=None)

    def probe_data(self) -> ProbeData:
        """Returns all items as observed and sampling set, with a group for each item."""
        size = len(self.hierarchy.items)
        groups = {name: torch.arange(size) == row for row, name in enumerate(self.hierarchy.items)}
        return ProbeData(self.batch, self.batch, groups)
