"""Images and text for Weights & Biases, through Lightning's WandbLogger."""

import numpy as np
from numpy.typing import NDArray

from stagewise.reporting.loggers.writer import LoggerWriter


class WandbWriter(LoggerWriter):
    """Logs images as ``wandb.Image`` and text as a ``wandb.Table`` of step and text.

    W&B counts its own step by calls of ``log`` and drops values for an earlier one. Lightning's logger never passes a
    step: it logs the training step as ``trainer/global_step`` with the values, and makes that the x axis
    (``define_metric("*", step_metric="trainer/global_step")``), so that values of past steps land where they belong.
    The slider of images uses W&B's own step; their captions show the training step.
    """

    def add_image(self, tag: str, img_tensor: NDArray[np.uint8], global_step: int, *, dataformats: str = "HWC") -> None:
        """Logs pixels ``[height, width, 3]`` with the training step as a caption."""
        self._logger.log_image(tag, [img_tensor], step=global_step, caption=[f"step {global_step:,}"])

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """Logs a table of one row: the step and the Markdown, unchanged."""
        self._logger.log_text(tag, columns=["step", "text"], data=[[global_step, text_string]], step=global_step)
