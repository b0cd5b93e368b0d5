"""Lightning's checkpoint files: which step each is of, and what it holds."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from stagewise.errors import InputError

_FILE = re.compile(r"step=(\d+)")


def read_lightning(path: Path) -> dict[str, Any]:
    """Content of a Lightning checkpoint: tensors and plain Python.

    Raises:
        InputError: it cannot be read, or holds other objects.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"got checkpoint {path}, which cannot be read ({str(error).splitlines()[0]}); expected one that Lightning "
            "saved, with tensors and plain Python alone; save it with save_weights_only"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"got checkpoint {path}, which holds a {type(content).__name__}; expected one of Lightning")
    return content


def lightning_files(paths: list[Path]) -> dict[int, Path]:
    """Training step to file: by ``step=<k>`` in the name, else by ``global_step`` inside.

    Where a file without a step in its name (``last.ckpt``) is of the step of another, the other one is taken.

    Raises:
        InputError: a file without a step, or two of the same one.
    """
    named: dict[int, Path] = {}
    inside: dict[int, Path] = {}
    for path in sorted(paths):
        match = _FILE.search(path.stem)
        found = named if match else inside
        step = int(match[1]) if match else read_lightning(path).get("global_step")
        if not isinstance(step, int):
            raise InputError(f"got checkpoint {path} without a step; expected step=<k> in its name; rename it")
        if step in found:
            raise InputError(
                f"got two checkpoints of step {step}, {found[step]} and {path}; expected one run; name its own folder"
            )
        found[step] = path
    return inside | named
