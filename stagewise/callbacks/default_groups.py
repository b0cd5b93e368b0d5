"""Default groups of a run: labels, or classes of tokens."""

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from stagewise.callbacks.tokenizers import FoundTokenizer, token_ids
from stagewise.isolation import untouched
from stagewise.lm.tokens import text_groups
from stagewise.probes.labels import label_groups
from stagewise.sampling.data import ProbeData
from stagewise.sampling.sharded_weights import weights_of, while_moving
from stagewise.sampling.target import Target


def default_groups(
    trainer: Trainer, module: LightningModule, data: ProbeData, target: Target, tokenizer: FoundTokenizer | None
) -> Mapping[str, Tensor]:
    """Finds groups for the observed set and logs them in one line; empty if neither labels nor tokens suit.

    Labels of ``(x, y)`` batches become groups, see :func:`~stagewise.probes.labels.label_groups`. With a tokenizer,
    token ids whose losses are ``[sample, position - 1]`` get those classes of
    :func:`~stagewise.lm.tokens.text_groups` that have a loss. The module is restored.

    Args:
        trainer: of the run.
        module: module in training, on its device.
        data: without groups.
        target: of the probes.
        tokenizer: of the run; None without one.
    """
    found: Mapping[str, Tensor] = label_groups(data.observed)
    if found:
        source = f"the {len(found)} labels of the observed set"
    elif tokenizer is not None:
        found = _token_classes(module, data, target, tokenizer)
        source = f"classes of tokens, by {tokenizer.place}"
    if found:
        rank_zero_info(
            f"stagewise: no groups are given, so the groups are {source}: {', '.join(found)}; groups={{}} for none"
        )
    return found


def _token_classes(
    module: LightningModule, data: ProbeData, target: Target, found: FoundTokenizer
) -> Mapping[str, Tensor]:
    """Returns classes of target tokens, ``[sample, position - 1]``; empty if losses or tokens have another form."""
    ids = token_ids(data.observed)
    if ids is None or not hasattr(found.tokenizer, "get_vocab"):
        return {}
    known = max(found.tokenizer.get_vocab().values(), default=-1)
    if int(ids.min()) < 0 or int(ids.max()) > known:
        return {}
    present = _present(module, target)
    if present is None or list(present.shape) != [len(ids), ids.shape[1] - 1]:
        return {}
    return {name: mask for name, mask in text_groups(ids, found.tokenizer).items() if (mask & present).any()}


def _present(module: LightningModule, target: Target) -> Tensor | None:
    """Returns the mask of the observed losses; None if the loss fails, which the check of the subject reports."""

    @torch.no_grad()
    def masks() -> Tensor:
        return torch.cat([target.evaluate(module, chunk).mask.cpu() for chunk in target.observed_chunks()])

    try:
        with untouched(module, checksums=True):
            # Not the weights themselves: a forward pass may write to them (a largest norm).
            return while_moving(module, weights_of(module, target), masks)
    except Exception:
        if target.sharding is not None:  # others may wait for this rank
            raise
        return None
