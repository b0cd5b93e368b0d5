"""Interface by which images, text and past scalars reach a logger: that of TensorBoard's SummaryWriter."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class RunWriter(Protocol):
    """Writer of images, text and single scalars of a run.

    A ``SummaryWriter`` has these methods; the adapters in this folder give them to other loggers.
    """

    def add_image(self, tag: str, img_tensor: NDArray[np.uint8], global_step: int, *, dataformats: str) -> None:
        """Shows an image.

        Args:
            tag: name; ``/`` makes groups of names.
            img_tensor: pixels ``[height, width, 3]``, 0 to 255.
            global_step: training step, on the x axis where the logger has one.
            dataformats: ``HWC``, the order of the axes.
        """

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """Shows Markdown.

        Args:
            tag: name.
            text_string: Markdown.
            global_step: training step.
        """

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Draws a value at a training step, possibly a past one.

        Args:
            tag: name.
            scalar_value: value.
            global_step: training step.
        """

    def add_custom_scalars(self, layout: dict[str, Any]) -> None:
        """Lays out charts in TensorBoard; other writers ignore the layout."""

    def flush(self) -> None:
        """Writes buffered data to disk."""


class LoggerWriter:
    """Base of the writers for loggers other than TensorBoard's; logs scalars like all others of the run."""

    def __init__(self, logger: Any) -> None:
        """Stores the logger without starting it; writes nothing yet.

        Args:
            logger: a Lightning logger.
        """
        self._logger = logger

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Draws a value at a training step; Lightning's loggers accept steps in any order."""
        self._logger.log_metrics({tag: scalar_value}, step=global_step)

    def add_custom_scalars(self, layout: dict[str, Any]) -> None:
        """Does nothing: layouts of charts are TensorBoard's own."""

    def flush(self) -> None:
        """Does nothing: these loggers write on their own."""
