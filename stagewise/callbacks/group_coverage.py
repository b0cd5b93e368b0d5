"""Coverage of the observed set by the groups of a run, and their overlaps: written when training starts."""

from collections.abc import Mapping
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from stagewise.callbacks.trainer_facts import writers
from stagewise.influence.groups import Groups
from stagewise.lm.classes.coverage import Coverage, class_coverage
from stagewise.reporting import tags
from stagewise.reporting.classes_page import classes_page, write_classes_page
from stagewise.reporting.tensorboard import write_text


def group_coverage(given: Mapping[str, Tensor], groups: Groups) -> Coverage:
    """Coverage of groups among the losses that there are: of samples where no group tells tokens apart.

    Args:
        given: the masks as they were given, ``[sample]`` or ``[sample, token]``.
        groups: the same, fitted to the losses.
    """
    masks, present = torch.from_numpy(groups.masks), torch.from_numpy(groups.present)
    if present.dim() == 2 and all(mask.dim() == 1 for mask in given.values()):
        masks, present = masks.any(dim=2), present.any(dim=1)
    return class_coverage(dict(zip(groups.names, masks, strict=True)), among=present)


def write_group_coverage(trainer: Trainer, folder: Path, given: Mapping[str, Tensor], groups: Groups) -> None:
    """Write ``classes.md`` and the same as text for TensorBoard; nothing where no groups are given.

    Args:
        trainer: whose TensorBoard gets the text.
        folder: of the run.
        given: the masks as they were given.
        groups: the same, fitted to the losses.
    """
    if not given:
        return
    coverage = group_coverage(given, groups)
    page = classes_page(coverage.markdown(), unit=coverage.unit)
    write_classes_page(folder, page)
    write_text(writers(trainer), tags.CLASSES, page, trainer.global_step)
