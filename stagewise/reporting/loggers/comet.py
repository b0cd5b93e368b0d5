"""Images and text for Comet, through the experiment of Lightning's CometLogger."""

import numpy as np
from numpy.typing import NDArray

from stagewise.reporting.loggers.writer import LoggerWriter


class CometWriter(LoggerWriter):
    """Logs images under *Graphics* and text under *Text*, each at its training step."""

    def add_image(self, tag: str, img_tensor: NDArray[np.uint8], global_step: int, *, dataformats: str = "HWC") -> None:
        """Logs pixels ``[height, width, 3]`` under the tag."""
        self._logger.experiment.log_image(img_tensor, name=tag, image_channels="last", step=global_step)

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """Logs Markdown unchanged; the metadata has the tag, since Comet's texts have no names."""
        self._logger.experiment.log_text(text_string, step=global_step, metadata={"tag": tag})

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Logs a value at a training step, without setting Comet's own step back.

        Comet assigns its own step to everything that the user logs without one.
        """
        experiment = self._logger.experiment
        before = experiment.curr_step
        super().add_scalar(tag, scalar_value, global_step)
        if before is not None and before > global_step:
            experiment.set_step(before)
