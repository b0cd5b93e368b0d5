"""Immediate refusal of a per-sample loss that logs or updates a metric."""

import lightning.pytorch as pl
import pytest
import torch
from torchmetrics import MeanMetric, MetricCollection

from stagewise import LossContractError
from stagewise.callbacks.no_logging import metrics_refused


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.metric = MeanMetric()
        self.metrics = MetricCollection({"mean": MeanMetric()})


@pytest.mark.parametrize(
    "act",
    [
        lambda m: m.log("a", 1.0),
        lambda m: m.log_dict({"a": 1.0}),
        lambda m: m.metric.update(torch.ones(1)),
        lambda m: m.metric(torch.ones(1)),
        lambda m: m.metrics(torch.ones(1)),
    ],
    ids=["log", "log_dict", "update", "forward", "collection"],
)
def test_logging_and_metric_updates_are_refused_without_side_effects(act):
    module = Net()
    module.metric.update(torch.tensor(3.0))
    own = {name: list(vars(child)) for name, child in module.named_modules()}
    with pytest.raises(LossContractError, match="got a per-sample loss that"), metrics_refused(module):
        act(module)
    assert {name: list(vars(child)) for name, child in module.named_modules()} == own
    assert module.metric.compute() == 3


def test_metrics_and_logging_work_afterwards():
    module = Net()
    with metrics_refused(module):
        pass
    assert "log" not in vars(module)
    module.metric(torch.tensor(2.0))
    assert module.metric.compute() == 2
