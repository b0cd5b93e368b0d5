"""gluonts: the module and the loader of a DeepAR estimator, trained by Lightning's Trainer."""

import lightning as L
import numpy as np
from gluonts.dataset.common import ListDataset
from gluonts.torch import DeepAREstimator

REQUIRES = ("gluonts[torch]==0.17.0",)
TRAINED = "DeepAREstimator's module and loader, an IterableDataset of windows"

rng = np.random.default_rng(1)
series = ListDataset(
    [{"start": "2024-01-01", "target": np.sin(np.arange(80) / 5 + k) + 0.1 * rng.normal(size=80)} for k in range(8)],
    freq="D",
)
estimator = DeepAREstimator(
    freq="D", prediction_length=4, context_length=8, hidden_size=8, lags_seq=[1, 7], batch_size=16, dropout_rate=0.0
)
module = estimator.create_lightning_module()
loader = estimator.create_training_data_loader(estimator.create_transformation().apply(series, is_train=True), module)

# glue
observed = next(iter(loader))
loss_fn = lambda module, batch: module.model.loss(**batch)
# end of glue

ARGUMENTS = {"loss_fn": loss_fn, "observed": observed}


def own_loss(module, batch):
    return module.training_step(observed, 0)


def train(callbacks):
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(module, loader)
