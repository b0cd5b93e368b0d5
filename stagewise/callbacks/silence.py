"""Refuse logging and metric updates inside a per-sample loss: a probe must leave nothing in the run's own metrics."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule
from torchmetrics import Metric

from stagewise.errors import LossContractError


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise LossContractError(
        "got a per-sample loss that calls self.log; expected one that only computes; log in training_step instead"
    )


@contextmanager
def metrics_refused(module: LightningModule) -> Iterator[None]:
    """Make ``module.log`` and ``module.log_dict`` raise inside the body, and look for updated metric objects after it.

    Raises:
        LossContractError: the body logs, or updates a torchmetrics metric of the module.
    """
    metrics = {name: child for name, child in module.named_modules() if isinstance(child, Metric)}
    before = {name: metric.update_count for name, metric in metrics.items()}
    own: dict[str, Any] = {name: vars(module)[name] for name in ("log", "log_dict") if name in vars(module)}
    vars(module).update(log=_refuse, log_dict=_refuse)
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            del vars(module)[name]
        vars(module).update(own)
    updated = [name for name, metric in metrics.items() if metric.update_count != before[name]]
    if updated:
        raise LossContractError(
            f"got a per-sample loss that updates the metric {updated[0]!r}; expected one that only computes; update "
            "metrics in training_step instead"
        )
