"""transformers: an encoder that classifies sequences, with metrics of torchmetrics."""

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassConfusionMatrix
from transformers import BertConfig, BertForSequenceClassification

REQUIRES = ("transformers==5.23.0", "torchmetrics==1.9.0")
TRAINED = "BertForSequenceClassification of 2 layers with padding, a MetricCollection in training_step"

generator = torch.Generator().manual_seed(1)
tokens = torch.randint(1, 100, (32, 12), generator=generator)
lengths = torch.randint(4, 13, (32, 1), generator=generator)
keep = (torch.arange(12) < lengths).long()
rows: Any = [{"input_ids": t * k, "attention_mask": k, "labels": t[0] % 3} for t, k in zip(tokens, keep, strict=True)]


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        sizes = {"vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = BertConfig(**sizes, intermediate_size=32, num_labels=3)
        self.model = BertForSequenceClassification(config)
        metrics = [MulticlassAccuracy(3), MulticlassAUROC(3), MulticlassConfusionMatrix(3)]
        self.metrics = MetricCollection(metrics)
        self.accuracy = MulticlassAccuracy(3)

    def training_step(self, batch, batch_idx):
        found = self.model(**batch)
        self.metrics.update(found.logits, batch["labels"])
        self.accuracy(found.logits, batch["labels"])
        self.log("accuracy", self.accuracy)
        return found.loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


# glue
def loss_fn(module, batch):
    return F.cross_entropy(module.model(**batch).logits, batch["labels"], reduction="none")


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(Classifier(), DataLoader(rows, batch_size=32))
