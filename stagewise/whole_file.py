"""A file that is whole or not there, whatever happens while it is written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write at, which takes the place of ``path`` when all went well, and is removed when it did not.

    What was at ``path`` stays until then. The content is on disk before the name is (fsync), so that neither a kill nor
    a power cut leaves a name without its content.

    Args:
        path: of the file; folders above it are made.

    Yields:
        Path of an unfinished file beside it, ``<name>.unfinished``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.unfinished")
    try:
        yield aside
        with aside.open("rb+") as content:
            os.fsync(content.fileno())
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):  # a disk that is gone: the first error is the one to tell
            aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where the file system can do that."""
    # Windows opens no folder, and some network file systems sync none.
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
