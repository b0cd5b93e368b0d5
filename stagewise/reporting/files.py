"""Files that are whole or not there."""

import json
from pathlib import Path
from typing import Any


def write_text_file(path: Path, text: str) -> Path:
    """Write aside and rename; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.unfinished")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write plain data; returns the path.

    Raises:
        ValueError: a number that is not finite, for which JSON has no word.
    """
    return write_text_file(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
