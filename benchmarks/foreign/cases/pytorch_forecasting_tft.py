"""pytorch-forecasting: a Temporal Fusion Transformer on panel data."""

import lightning as L
import numpy as np
import pandas as pd
from pytorch_forecasting import QuantileLoss, TemporalFusionTransformer, TimeSeriesDataSet

REQUIRES = ("pytorch-forecasting==1.8.0",)
TRAINED = "TemporalFusionTransformer, quantile loss, 8 series"

rng = np.random.default_rng(1)
time = np.arange(40)
frame = pd.concat(
    pd.DataFrame(
        {
            "time": time,
            "series": str(number),
            "kind": "ab"[number % 2],
            "value": np.sin(time / 4 + number) + 0.1 * rng.normal(size=40),
        }
    )
    for number in range(8)
)
dataset = TimeSeriesDataSet(
    frame.reset_index(drop=True),
    time_idx="time",
    target="value",
    group_ids=["series"],
    static_categoricals=["kind"],
    time_varying_known_reals=["time"],
    time_varying_unknown_reals=["value"],
    max_encoder_length=12,
    max_prediction_length=4,
)
loader = dataset.to_dataloader(train=True, batch_size=64, shuffle=False)


# glue
def loss_fn(module, batch):
    return module.loss.loss(module(batch[0])["prediction"], batch[1][0]).mean(-1)


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    model = TemporalFusionTransformer.from_dataset(
        dataset, hidden_size=8, attention_head_size=2, loss=QuantileLoss(), optimizer="adam", learning_rate=1e-2
    )
    L.Trainer(max_steps=8, max_epochs=10, callbacks=callbacks, accelerator="cpu").fit(model, loader)
