"""Lightning's checkpoint files: their training steps and their content."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stagewise.errors import InputError, first_line
from stagewise.sweep.checkpoint_names import PLAIN, CheckpointName, NameRules, is_numbered
from stagewise.sweep.inert_pickle import read_tensors


@dataclass(frozen=True)
class LightningFile:
    """Checkpoint file of Lightning.

    Attributes:
        name: without its ending, and what is known of its place in training.
        path: of the file.
    """

    name: CheckpointName
    path: Path


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


def lightning_files(
    paths: list[Path], rules: NameRules = PLAIN, where: str = "the given files"
) -> dict[int, LightningFile]:
    """Returns files by training step: that of the name (``step=<k>``, ``step_<k>``, ...), else ``global_step`` inside.

    Where a file without a step in its name (``last.ckpt``) is of the step of another, the other one is taken.

    Args:
        paths: of the files.
        rules: by which names without their ending are read.
        where: they are, for messages.

    Raises:
        InputError: a file without a step, two of the same one, or several branches without a choice.
    """
    named: dict[tuple[str, int], LightningFile] = {}
    inside: dict[tuple[str, int], LightningFile] = {}
    for path in sorted(paths):
        if rules.listed is not None and path.stem not in rules.listed:
            continue
        told = rules.read(path.stem)
        if told is not None and rules.pattern is None and rules.steps is None and is_numbered(path.stem):
            told = None
        found = inside if told is None else named
        name = _read_inside(path, rules) if told is None else told
        known = found.get((name.branch, name.step))
        if known is not None:
            raise InputError(
                f"got two checkpoints of step {name.step}, {known.path} and {path}; expected one run; name "
                "the folder of one"
            )
        found[name.branch, name.step] = LightningFile(name, path)
    steps = {step for _, step in named}
    files = {place: file for place, file in inside.items() if place[1] not in steps} | named
    places = rules.along([file.name for file in files.values()], where)
    return {step: LightningFile(name, files[name.branch, name.step].path) for step, name in places.items()}


def _read_inside(path: Path, rules: NameRules) -> CheckpointName:
    """Returns the name of a file with the step that the file holds.

    Raises:
        InputError: it holds none.
    """
    step = read_lightning(path).get("global_step")
    name = rules.read(path.stem, step=step) if isinstance(step, int) else None
    if name is None:
        raise InputError(
            f"got checkpoint {path} without a step; expected step=<k> in its name or global_step inside; rename "
            "it, or set step_pattern"
        )
    return name
