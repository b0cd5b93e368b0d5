"""Atomic writing of files and folders: complete or absent, even if writing is interrupted."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stagewise.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which replaces ``path`` on success and is removed after an error.

    An existing file at ``path`` stays until then. The content is flushed to disk before the rename (fsync), so that
    neither a kill nor a power cut leaves a name without its content.

    Args:
        path: of the file; parent folders are created.

    Yields:
        Path of an unfinished file in the same folder, ``<name>.unfinished``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.unfinished")
    try:
        yield aside
        with aside.open("rb+") as content:
            os.fsync(content.fileno())
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):  # the disk may be gone: report the first error
            aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to disk, if the file system supports it."""
    # Windows cannot open folders, and some network file systems cannot sync them.
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a folder to write in, which replaces ``folder`` on success and is removed after an error.

    Args:
        folder: an existing folder is removed before the new one takes its name; a kill in between leaves none.

    Yields:
        Path of an unfinished folder next to it, ``.<name>.unfinished``, which does not exist yet.
    """
    aside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        yield aside
        _sync_below(aside)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sync_folder(folder.parent)


def _sync_below(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as content:
                os.fsync(content.fileno())


def refuse_below_file(path: Path) -> None:
    """Refuses a path below a file.

    Args:
        path: of a file or folder to be written.

    Raises:
        InputError: a parent of the path is a file; the message names it.
    """
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"got output {path}, but {parent} is a file; expected a folder there; choose another")
            return


def write_text_file(path: Path, text: str) -> Path:
    """Writes a text file atomically, see :func:`whole_file`; returns the path."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Any) -> Path:
    """Writes plain data as JSON, atomically; returns the path.

    Raises:
        ValueError: a number that is not finite, which JSON cannot represent.
    """
    return write_text_file(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
