"""Scores of attention heads at a checkpoint, where the model shows its attention."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from stagewise.errors import InputError
from stagewise.isolation import untouched
from stagewise.lm.induction import induction_scores, repeated_random
from stagewise.losses.language_models import causal_lm_name
from stagewise.sweep.config import CircuitSettings

TABLES = ("prefix_matching", "previous_token", "copying")
"""Scores of heads, see :mod:`stagewise.lm.induction`."""

SCORES = ("icl_score", "loss_gap")
"""Scores of the whole model on the same sequences, nats per token; negative where the context helps."""

Table = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Circuits:
    """What the heads of a checkpoint do.

    Attributes:
        tables: by name in :data:`TABLES` ``[layer][head]``; ``copying`` only where the layout of the architecture is
            known. None in place of a value that is not finite.
        scores: by name in :data:`SCORES`, nats per token.
        note: why there are none, in words; else empty.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rows(table: Tensor) -> Table:
    return tuple(tuple(_finite(value) for value in row) for row in table.double().tolist())


def measure_circuits(module: nn.Module, settings: CircuitSettings, *, bos_token_id: int | None = None) -> Circuits:
    """Scores of all heads on repeated random tokens, the same ones at all checkpoints.

    Args:
        module: holds a Hugging Face causal language model; left bit for bit as it was.
        settings: of the sequences.
        bos_token_id: put before each sequence; None for models trained without one.
    """
    model = module.get_submodule(causal_lm_name(module) or "")
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    needed = settings.copies * settings.segment_length + 1
    try:
        ids, length = repeated_random(
            settings.num_sequences,
            vocab_size=config.vocab_size,
            context=getattr(config, "max_position_embeddings", None) or needed,
            segment_length=settings.segment_length,
            copies=settings.copies,
            bos_token_id=bos_token_id,
            seed=settings.seed,
        )
        ids = ids.to(next(model.parameters()).device)
        with untouched(module), torch.no_grad():
            scores, tables = induction_scores(model, ids, length, bos=bos_token_id is not None)
    except InputError as error:
        return Circuits(note=str(error))
    return Circuits(
        {name: _rows(table) for name, table in tables.items()}, {name: _finite(scores[name]) for name in SCORES}
    )
