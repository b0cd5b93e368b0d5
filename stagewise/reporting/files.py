"""Files that are whole or not there."""

import json
from pathlib import Path
from typing import Any

from stagewise.errors import InputError
from stagewise.whole_file import whole_file


def refuse_below_file(path: Path) -> None:
    """Refuse a path that cannot be made, since what should be a folder above it is a file.

    Args:
        path: of a file or a folder to be written.

    Raises:
        InputError: naming the file in the way.
    """
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"got output {path}, but {parent} is a file; expected a folder there; choose another")
            return


def write_text_file(path: Path, text: str) -> Path:
    """Write aside and rename, see :func:`stagewise.whole_file.whole_file`; returns the path."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write plain data; returns the path.

    Raises:
        ValueError: a number that is not finite, for which JSON has no word.
    """
    return write_text_file(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
