"""pytorch-forecasting: N-BEATS on panel data."""

import lightning as L
import numpy as np
import pandas as pd
from pytorch_forecasting import SMAPE, NBeats, TimeSeriesDataSet

REQUIRES = ("pytorch-forecasting==1.8.0",)
TRAINED = "NBeats, SMAPE, 8 series"

rng = np.random.default_rng(1)
time = np.arange(40)
frame = pd.concat(
    pd.DataFrame({"time": time, "series": str(number), "value": 3 + np.sin(time / 4 + number) + rng.normal(size=40)})
    for number in range(8)
)
dataset = TimeSeriesDataSet(
    frame.reset_index(drop=True),
    time_idx="time",
    target="value",
    group_ids=["series"],
    time_varying_unknown_reals=["value"],
    max_encoder_length=12,
    max_prediction_length=4,
)
loader = dataset.to_dataloader(train=True, batch_size=64, shuffle=False)


# glue
def loss_fn(module, batch):
    return module.loss.loss(module(batch[0])["prediction"], batch[1][0])


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    model = NBeats.from_dataset(dataset, widths=[16, 32], loss=SMAPE(), backcast_loss_ratio=0.0, optimizer="adam")
    L.Trainer(max_steps=8, max_epochs=10, callbacks=callbacks, accelerator="cpu").fit(model, loader)
