"""What changes when files are replaced by others."""

from collections.abc import Iterable
from pathlib import Path


def file_identity(paths: Iterable[Path]) -> str:
    """Names, sizes and times of change; folders are passed over. Weights are not read, which takes too long.

    Args:
        paths: of files.
    """
    stats = ((path.name, path.stat()) for path in sorted(paths) if path.is_file())
    return "; ".join(f"{name} {it.st_size} {it.st_mtime_ns}" for name, it in stats)
