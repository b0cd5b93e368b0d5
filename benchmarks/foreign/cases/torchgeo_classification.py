"""torchgeo: its classification task and data module, which normalises batches on the device."""

import lightning as L
import torch
import torch.nn.functional as F
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import NonGeoDataset
from torchgeo.trainers import ClassificationTask

# It imports requests, which it does not name.
REQUIRES = ("torchgeo==0.8.1", "requests", "torch==2.14.1", "torchvision==0.29.1")
TRAINED = "ClassificationTask (MobileNet V3) with NonGeoDataModule, kornia in on_after_batch_transfer"


class Scenes(NonGeoDataset):
    def __init__(self, split):
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randint(0, 256, (16, 3, 32, 32), generator=generator).float()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": torch.tensor(index % 3)}


# glue
def loss_fn(module, batch):
    return F.cross_entropy(module(batch["image"]), batch["label"], reduction="none")


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    task = ClassificationTask(model="mobilenetv3_small_050", weights=None, in_channels=3, num_classes=3)
    trainer = L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu")
    trainer.fit(task, datamodule=NonGeoDataModule(Scenes, batch_size=16))
