"""Images and text for MLflow, through the client of Lightning's MLFlowLogger."""

import numpy as np
from numpy.typing import NDArray

from stagewise.reporting.loggers.names import plain_name
from stagewise.reporting.loggers.writer import LoggerWriter


class MlflowWriter(LoggerWriter):
    """Logs images by step under ``images/``, and the newest text as the artifact ``text/<tag>.md``.

    MLflow does not allow ``~`` in names, and Lightning drops such characters: ``a~bc`` and ``ab~c`` would become one
    curve. Names are therefore :func:`~stagewise.reporting.loggers.names.plain_name` of the tags.
    """

    def add_image(self, tag: str, img_tensor: NDArray[np.uint8], global_step: int, *, dataformats: str = "HWC") -> None:
        """Logs pixels ``[height, width, 3]`` under a key and a step (MLflow 2.13 or later)."""
        client, run = self._logger.experiment, self._logger.run_id
        client.log_image(run, img_tensor, key=plain_name(tag), step=global_step)

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """Logs Markdown, replacing that of earlier steps."""
        self._logger.experiment.log_text(self._logger.run_id, text_string, f"text/{plain_name(tag)}.md")

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Logs a value at a training step; MLflow accepts steps in any order."""
        super().add_scalar(plain_name(tag), scalar_value, global_step)
