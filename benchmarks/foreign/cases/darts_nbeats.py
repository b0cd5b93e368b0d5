"""darts: N-BEATS by darts' own fit (pytorch_lightning's Trainer)."""

import numpy as np
from darts import TimeSeries
from darts.models import NBEATSModel

REQUIRES = ("darts==0.48.1", "pytorch-lightning==2.6.6")
TRAINED = "NBEATSModel.fit, mean squared error, one series"

rng = np.random.default_rng(1)
values = np.sin(np.arange(47) / 4) + 0.1 * rng.normal(size=47)
series = TimeSeries.from_values(values.astype(np.float32))


# glue
def loss_fn(module, batch):
    return (module(batch.to_module_input()).prediction[..., 0] - batch.future_target).square().mean((1, 2))


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    sizes = {"num_stacks": 2, "num_blocks": 1, "num_layers": 2, "layer_widths": 16}
    trainer = {"accelerator": "cpu", "callbacks": callbacks}
    # 47 values make 32 windows of 12 + 4: the batch holds them all.
    NBEATSModel(12, 4, **sizes, batch_size=32, n_epochs=8, pl_trainer_kwargs=trainer).fit(series)
