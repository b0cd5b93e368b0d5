"""Lightning's checkpoint files: their training steps and their content."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stagewise.errors import InputError, first_line
from stagewise.sweep.inert_pickle import read_tensors
from stagewise.sweep.step_names import step_of


def read_lightning(path: Path) -> dict[str, Any]:
    """Returns content of a Lightning checkpoint: tensors and plain Python.

    Objects of other classes in hyperparameters or callbacks are replaced by inert ones: none of their code is run.

    Raises:
        InputError: it cannot be read.
    """
    if path.is_dir():
        raise InputError(
            f"got checkpoint {path}, a folder of shards; expected one file; put them together with python -m "
            "lightning.pytorch.utilities.consolidate_checkpoint, or with zero_to_fp32.py where DeepSpeed wrote it"
        )
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:  # other objects, or no pickle at all
            content = read_tensors(path)
    except Exception as error:  # a pickle can break in any way
        raise InputError(
            f"got checkpoint {path}, which cannot be read ({first_line(error)}); expected "
            "one that Lightning saved; save it again, or leave it out"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"got checkpoint {path}, which holds a {type(content).__name__}; expected one of Lightning")
    return content


def lightning_weights(path: Path) -> dict[str, Tensor]:
    """Returns the state of the module in a Lightning checkpoint.

    Raises:
        InputError: it cannot be read, has no state, or has a state with values other than tensors.
    """
    content = read_lightning(path)
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        raise InputError(
            f"got checkpoint {path} without state_dict, with {sorted(map(str, content))[:8]}; expected one of Lightning"
        )
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"got checkpoint {path} with {name!r} in its state_dict, which is no tensor; expected tensors alone; "
                "load it yourself with torch.load(..., weights_only=False), make state_dict plain, and "
                "torch.save it again"
            )
    return dict(state)


def lightning_files(paths: list[Path], pattern: str | None = None) -> dict[int, Path]:
    """Maps training steps to files: by the name (``step=<k>``, ``step_<k>``, ...), else by ``global_step`` inside.

    Where a file without a step in its name (``last.ckpt``) is of the step of another, the other one is taken.

    Args:
        paths: of the files.
        pattern: of names without their ending, see :func:`~stagewise.sweep.step_names.step_of`.

    Raises:
        InputError: a file without a step, or two of the same one.
    """
    named: dict[int, Path] = {}
    inside: dict[int, Path] = {}
    for path in sorted(paths):
        told = step_of(path.stem, pattern)
        found = inside if told is None else named
        step = read_lightning(path).get("global_step") if told is None else told
        if not isinstance(step, int):
            raise InputError(
                f"got checkpoint {path} without a step; expected step=<k> in its name or global_step inside; rename "
                "it, or set step_pattern"
            )
        if step in found:
            raise InputError(
                f"got two checkpoints of step {step}, {found[step]} and {path}; expected one run; name its own folder"
            )
        found[step] = path
    return inside | named
