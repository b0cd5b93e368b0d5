"""Scores of attention heads at a checkpoint, and their files."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stagewise.errors import InputError
from stagewise.files.json_input import read_json
from stagewise.files.writing import write_json
from stagewise.isolation import untouched
from stagewise.lm.induction import induction_scores, repeated_random
from stagewise.losses.language_models import causal_lm_name
from stagewise.sweep.config import CircuitSettings

TABLES = ("prefix_matching", "previous_token", "copying")
"""Scores of heads, see :mod:`stagewise.lm.induction`."""

SCORES = ("icl_score", "loss_gap")
"""Scores of the whole model on the same sequences, nats per token; negative if the context helps."""

Table = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Circuits:
    """Scores of the heads of a checkpoint.

    Attributes:
        tables: by name in :data:`TABLES` ``[layer][head]``; ``copying`` only where the layout of the architecture is
            known. None in place of a value that is not finite.
        scores: by name in :data:`SCORES`, nats per token.
        note: reason why there are none; else empty.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rows(table: Tensor) -> Table:
    return tuple(tuple(_finite(value) for value in row) for row in table.double().tolist())


def measure_circuits(module: nn.Module, settings: CircuitSettings, *, bos_token_id: int | None = None) -> Circuits:
    """Returns scores of all heads on repeated random tokens, the same ones at all checkpoints.

    Args:
        module: holds a Hugging Face causal language model; restored bit for bit.
        settings: of the sequences.
        bos_token_id: token before each sequence; None for models trained without one.
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


_FOLDER = "circuits"

Key = Mapping[str, Any]
"""Everything on which the scores of a checkpoint depend, as plain data."""


def circuits_key(settings: CircuitSettings, *, bos_token_id: int | None, checkpoint: str) -> Key:
    """Returns the settings on which the scores depend.

    Args:
        settings: of the sequences.
        bos_token_id: token before each sequence.
        checkpoint: identity that changes when its weights are replaced.
    """
    given = {name: value for name, value in asdict(settings).items() if name != "enabled"}
    return {**given, "bos_token_id": bos_token_id, "checkpoint": checkpoint}


def write_circuits(output: Path, step: int, key: Key, circuits: Circuits) -> Path:
    """Writes the scores of a checkpoint atomically; returns their path."""
    return write_json(_path(output, step), {"measured_on": dict(key), **asdict(circuits)})


def read_circuits(output: Path, step: int, key: Key) -> Circuits | None:
    """Reads the scores of a checkpoint; None if they are missing, unreadable, or have another key."""
    try:
        content = read_json(_path(output, step), what="scores of heads", advice="delete it")
        if content["measured_on"] != dict(key):
            return None
        tables = {name: tuple(tuple(row) for row in table) for name, table in content["tables"].items()}
        return Circuits(tables, dict(content["scores"]), str(content["note"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _path(output: Path, step: int) -> Path:
    return output / _FOLDER / f"step{step}.json"
