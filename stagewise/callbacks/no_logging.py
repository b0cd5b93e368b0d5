"""Refusal of logging and metric updates inside a per-sample loss: probes must not affect the run's metrics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import Metric

from stagewise.errors import LossContractError


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise LossContractError(
        "got a per-sample loss that calls self.log; expected one that only computes; log in training_step instead"
    )


def _refuse_update(name: str) -> Callable[..., None]:
    def update(*args: Any, **kwargs: Any) -> None:
        raise LossContractError(
            f"got a per-sample loss that updates the metric {name!r}; expected one that only computes; update metrics "
            "in training_step instead"
        )

    return update


@contextmanager
def metrics_refused(module: LightningModule) -> Iterator[None]:
    """Makes ``module.log``, ``module.log_dict`` and updates of the module's torchmetrics raise inside the context.

    Raises:
        LossContractError: logging, or an update of a metric of the module.
    """
    held = {name: child for name, child in module.named_modules() if isinstance(child, Metric)}
    refusals: list[tuple[nn.Module, str, Any]] = [(module, "log", _refuse), (module, "log_dict", _refuse)]
    # A metric's forward clears its state before it calls update.
    refusals += [(metric, way, _refuse_update(name)) for name, metric in held.items() for way in ("update", "forward")]
    before = [(owner, dict(vars(owner))) for owner, _, _ in refusals]
    for owner, name, refusal in refusals:
        vars(owner)[name] = refusal
    try:
        yield
    finally:
        for (owner, name, _), (_, own) in zip(refusals, before, strict=True):
            if name in own:
                vars(owner)[name] = own[name]
            else:
                del vars(owner)[name]
