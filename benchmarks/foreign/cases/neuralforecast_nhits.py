"""neuralforecast: NHITS by NeuralForecast.fit (pytorch_lightning's Trainer); its steps draw windows at random."""

import numpy as np
import pandas as pd
import torch
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MAE
from neuralforecast.models import NHITS

REQUIRES = ("neuralforecast==3.3.0",)
TRAINED = "NHITS, mean absolute error, NeuralForecast.fit, 4 series"
LIMITS = "A training step draws windows from whole series, so the observed samples are windows, made by the glue."

rng = np.random.default_rng(1)
values = np.stack([np.sin(np.arange(40) / 4 + k) + 0.1 * rng.normal(size=40) for k in range(4)]).astype(np.float32)
days = pd.date_range("2024-01-01", periods=40)
frame = pd.concat(pd.DataFrame({"unique_id": str(k), "ds": days, "y": values[k]}) for k in range(4))


# glue
def loss_fn(module, window):
    past = {"insample_y": window[:, :12], "insample_mask": torch.ones_like(window[:, :12])}
    past |= {"futr_exog": None, "hist_exog": None, "stat_exog": None}
    return (module(past) - window[:, 12:]).abs().mean((1, 2))


windows = torch.from_numpy(values).unfold(-1, 16, 1).reshape(-1, 16, 1)
# end of glue

ARGUMENTS = {"loss_fn": loss_fn, "observed": windows, "sampling": windows}


def own_loss(module, batch):
    # All windows, and none that reaches beyond the series.
    module.windows_batch_size, module.padder_train = None, torch.nn.Identity()
    return module.training_step(batch, 0)


def train(callbacks):
    sizes = {"h": 4, "input_size": 12, "mlp_units": 3 * [[16, 16]], "scaler_type": "identity"}
    model = NHITS(**sizes, loss=MAE(), max_steps=8, accelerator="cpu", callbacks=callbacks)
    NeuralForecast(models=[model], freq="D").fit(frame, val_size=0)
