"""Scores of heads on disk: measured once for each checkpoint, and again where the checkpoint or the settings differ."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stagewise.files.json_input import read_json
from stagewise.files.writing import write_json
from stagewise.sweep.circuits import Circuits
from stagewise.sweep.config import CircuitSettings

_FOLDER = "circuits"

Key = Mapping[str, Any]
"""All that the scores of a checkpoint depend on, as plain data."""


def circuits_key(settings: CircuitSettings, *, bos_token_id: int | None, checkpoint: str) -> Key:
    """What scores were measured on.

    Args:
        settings: of the sequences.
        bos_token_id: put before each sequence.
        checkpoint: what changes when its weights are replaced by others.
    """
    given = {name: value for name, value in asdict(settings).items() if name != "enabled"}
    return {**given, "bos_token_id": bos_token_id, "checkpoint": checkpoint}


def write_circuits(output: Path, step: int, key: Key, circuits: Circuits) -> Path:
    """Keep the scores of a checkpoint, whole or not at all; returns their path."""
    return write_json(_path(output, step), {"measured_on": dict(key), **asdict(circuits)})


def read_circuits(output: Path, step: int, key: Key) -> Circuits | None:
    """The scores of a checkpoint; None where there are none, none that can be read, or those of something else."""
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
