"""Both packages that Lightning comes in: ``lightning.pytorch`` and ``pytorch_lightning`` have classes of their own."""

import logging
import sys
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from lightning_utilities.core import rank_zero

_PACKAGES = ("lightning.pytorch.", "pytorch_lightning.")

if TYPE_CHECKING:

    class HostCallback(Callback):
        """Base of the callbacks of this package: a callback of every Lightning that is installed."""

else:
    try:
        from pytorch_lightning import Callback as OtherCallback
    except Exception:  # not installed, or not in working order, which is no matter for this package
        _BASES = (Callback,)
    else:
        _BASES = (Callback, OtherCallback)
        # Each takes over the log of both when it is imported: it stays with the one that the user imported first.
        _order = list(sys.modules)
        _first = min(("lightning.pytorch", "pytorch_lightning"), key=_order.index)
        rank_zero.log = logging.getLogger(f"{_first}.utilities.rank_zero")

    class HostCallback(*_BASES):
        """Base of the callbacks of this package: a callback of every Lightning that is installed."""


def is_a(value: Any, *names: str) -> bool:
    """True if a value is an instance of one of Lightning's classes, by name, of either package.

    Args:
        value: a logger, strategy, callback or exception.
        names: such as ``TensorBoardLogger``.
    """
    return any(kind.__name__ in names and _of_lightning(kind) for kind in type(value).__mro__)


def _of_lightning(kind: type) -> bool:
    return kind.__module__.startswith((*_PACKAGES, "lightning.fabric.", "lightning_fabric."))
