"""Images and text as files next to the ``metrics.csv`` of Lightning's CSVLogger."""

import io

import fsspec
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from stagewise.reporting.loggers.names import plain_name
from stagewise.reporting.loggers.writer import LoggerWriter


class FolderWriter(LoggerWriter):
    """Writes ``images/<tag>/step-<k>.png``, and ``text/<tag>.md`` with the newest text, on any file system of fsspec.

    Names of files are :func:`~stagewise.reporting.loggers.names.plain_name` of the tags. Logging a step again replaces
    its file, so that a resumed run leaves the same files as an uninterrupted one.
    """

    def add_image(self, tag: str, img_tensor: NDArray[np.uint8], global_step: int, *, dataformats: str = "HWC") -> None:
        """Writes a PNG of ``[height, width, 3]``."""
        png = io.BytesIO()
        imsave(png, img_tensor, format="png")
        self._write(f"images/{plain_name(tag)}/step-{global_step}.png", png.getvalue())

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """Writes Markdown, replacing that of earlier steps."""
        self._write(f"text/{plain_name(tag)}.md", text_string.encode())

    def _write(self, name: str, content: bytes) -> None:
        # Through its experiment: on starting, the logger warns of existing files in its folder.
        system, root = fsspec.core.url_to_fs(str(self._logger.experiment.log_dir))
        path = f"{root.rstrip('/')}/{name}"
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, content)
