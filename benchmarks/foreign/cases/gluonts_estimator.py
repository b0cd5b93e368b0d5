"""gluonts: an estimator that makes its own Trainer."""

import numpy as np
from gluonts.dataset.common import ListDataset
from gluonts.torch import SimpleFeedForwardEstimator

REQUIRES = ("gluonts[torch]==0.17.0",)
TRAINED = "SimpleFeedForwardEstimator.train(), which makes loader and Trainer itself"

rng = np.random.default_rng(1)
series = ListDataset(
    [{"start": "2024-01-01", "target": np.sin(np.arange(80) / 5 + k) + 0.1 * rng.normal(size=80)} for k in range(8)],
    freq="D",
)
settings = dict(prediction_length=4, context_length=8, hidden_dimensions=[16], batch_size=16)
estimator = SimpleFeedForwardEstimator(**settings, num_batches_per_epoch=4)

# glue
windows = estimator.create_transformation().apply(series, is_train=True)
observed = next(iter(estimator.create_training_data_loader(windows, estimator.create_lightning_module())))
loss_fn = lambda module, batch: module.model.loss(**batch)
# end of glue

ARGUMENTS = {"loss_fn": loss_fn, "observed": observed}


def own_loss(module, batch):
    return module.training_step(observed, 0)


def train(callbacks):
    kwargs = {"max_epochs": 2, "callbacks": callbacks, "accelerator": "cpu"}
    SimpleFeedForwardEstimator(**settings, num_batches_per_epoch=4, trainer_kwargs=kwargs).train(series)
