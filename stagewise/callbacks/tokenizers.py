"""Tokenizer of a language model in training, if one is available."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from stagewise.batches import Batch
from stagewise.errors import LossContractError
from stagewise.losses.language_models import causal_lm_name


class FoundTokenizer(NamedTuple):
    """A tokenizer.

    Attributes:
        tokenizer: with the interface of Hugging Face.
        place: description of its origin.
    """

    tokenizer: Any
    place: str


def find_tokenizer(trainer: Trainer, module: LightningModule) -> FoundTokenizer | None:
    """Finds the tokenizer of a run, without downloads.

    Tries ``module.tokenizer``, ``datamodule.tokenizer``, that of the training loader's ``collate_fn``, then the one
    stored on this machine under the name of the module's Hugging Face causal language model.

    Args:
        trainer: at the start of training, with its loader set up.
        module: module in training.
    """
    return next(_found(trainer, module), None)


def _found(trainer: Trainer, module: LightningModule) -> Iterator[FoundTokenizer]:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    collate_fn = getattr(trainer.train_dataloader, "collate_fn", None)
    for owner, place in ((module, "the module"), (datamodule, "the data module"), (collate_fn, "the collate_fn")):
        tokenizer = getattr(owner, "tokenizer", None)
        if hasattr(tokenizer, "decode"):
            yield FoundTokenizer(tokenizer, f"the tokenizer of {place}")
    yield from _of_model(module)


def _of_model(module: LightningModule) -> Iterator[FoundTokenizer]:
    try:
        place = causal_lm_name(module)
    except LossContractError:  # several models: ambiguous
        return
    model: Any = None if place is None else module.get_submodule(place)
    name = getattr(model, "name_or_path", "")
    if not name:
        return
    from transformers import AutoTokenizer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except Exception:  # none on this machine; of many types
        return
    # A tokenizer with another vocabulary would decode other words.
    size = getattr(model.config, "vocab_size", None)
    if isinstance(size, int) and len(tokenizer) <= size:
        yield FoundTokenizer(tokenizer, f"the tokenizer of {name}")


def token_ids(batch: Batch) -> Tensor | None:
    """Returns the token ids of a batch, ``[sample, position]``; None if it has none.

    Args:
        batch: ids, alone or as the one tensor of a tuple or list; or a mapping with ``input_ids``.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 1:
        batch = batch[0]
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else batch
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.shape[1] < 2 or ids.is_floating_point():
        return None
    return ids.detach().cpu().long()
