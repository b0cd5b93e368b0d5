"""Refuse logging from inside a per-sample loss: a probe must not leave values in the run's own metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule

from stagewise.errors import LossContractError


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise LossContractError(
        "got a per-sample loss that calls self.log; expected one that only computes; log in training_step instead"
    )


@contextmanager
def logging_refused(module: LightningModule) -> Iterator[None]:
    """Make ``module.log`` and ``module.log_dict`` raise inside the body; as before afterwards.

    Raises:
        LossContractError: the body logs.
    """
    own: dict[str, Any] = {name: vars(module)[name] for name in ("log", "log_dict") if name in vars(module)}
    vars(module).update(log=_refuse, log_dict=_refuse)
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            del vars(module)[name]
        vars(module).update(own)
