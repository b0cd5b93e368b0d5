"""Support for both Lightning packages, ``lightning.pytorch`` and ``pytorch_lightning``, whose classes differ."""

import logging
import sys
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from lightning_utilities.core import rank_zero

_PACKAGES = ("lightning.pytorch.", "pytorch_lightning.")

if TYPE_CHECKING:

    class HostCallback(Callback):
        """Base of the callbacks: a subclass of the ``Callback`` of each installed Lightning."""

else:
    try:
        from pytorch_lightning import Callback as OtherCallback
    except Exception:  # not installed, or broken
        _BASES = (Callback,)
    else:
        _BASES = (Callback, OtherCallback)
        # Each package sets the logger of both on import: keep that of the first one imported.
        _order = list(sys.modules)
        _first = min(("lightning.pytorch", "pytorch_lightning"), key=_order.index)
        rank_zero.log = logging.getLogger(f"{_first}.utilities.rank_zero")

    class HostCallback(*_BASES):
        """Base of the callbacks: a subclass of the ``Callback`` of each installed Lightning."""


def is_a(value: Any, *names: str) -> bool:
    """Returns True for an instance of one of the named classes of either Lightning package.

    Args:
        value: a logger, strategy, callback or exception.
        names: such as ``TensorBoardLogger``.
    """
    return any(kind.__name__ in names and _of_lightning(kind) for kind in type(value).__mro__)


def _of_lightning(kind: type) -> bool:
    return kind.__module__.startswith((*_PACKAGES, "lightning.fabric.", "lightning_fabric."))
