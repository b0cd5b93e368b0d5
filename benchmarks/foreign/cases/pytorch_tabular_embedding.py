"""pytorch-tabular: categories embedded, by its own TabularModel (pytorch_lightning's Trainer)."""

import numpy as np
import pandas as pd
import torch.nn.functional as F
from pytorch_tabular import TabularModel
from pytorch_tabular.config import DataConfig, OptimizerConfig, TrainerConfig
from pytorch_tabular.models import CategoryEmbeddingModelConfig

# It imports requests, which it does not name.
REQUIRES = ("pytorch-tabular==1.2.0", "requests")
TRAINED = "CategoryEmbeddingModel, regression, TabularModel.fit"

rng = np.random.default_rng(1)
frame = pd.DataFrame({"size": rng.normal(size=64), "kind": rng.choice(list("abc"), size=64)})
frame["price"] = frame["size"] + (frame["kind"] == "a") + 0.1 * rng.normal(size=64)


# glue
def loss_fn(module, batch):
    return F.mse_loss(module(batch)["logits"], batch["target"], reduction="none")


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    settings = {"early_stopping": None, "checkpoints": None, "load_best": False, "progress_bar": "none"}
    model = TabularModel(
        data_config=DataConfig(target=["price"], continuous_cols=["size"], categorical_cols=["kind"]),
        model_config=CategoryEmbeddingModelConfig(task="regression", layers="16-8", dropout=0.0),
        optimizer_config=OptimizerConfig(),
        trainer_config=TrainerConfig(max_epochs=8, batch_size=64, accelerator="cpu", **settings),
    )
    model.fit(train=frame, validation=frame, callbacks=callbacks)
