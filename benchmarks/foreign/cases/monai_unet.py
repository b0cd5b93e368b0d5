"""monai: a UNet with a Dice loss, dictionaries of MetaTensors through monai's transforms."""

import lightning as L
import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureChannelFirstd, ScaleIntensityd

REQUIRES = ("monai==1.6.1",)
TRAINED = "UNet, Dice loss, 8 images as MetaTensor"

rng = np.random.default_rng(1)
pictures = rng.random((8, 32, 32)).astype(np.float32)
names = {"keys": ["image", "label"], "channel_dim": "no_channel"}
transform = Compose([EnsureChannelFirstd(**names), ScaleIntensityd(keys=["image"])])
dataset = Dataset([{"image": picture, "label": (picture > 0.5).astype(np.float32)} for picture in pictures], transform)


class Segmenter(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = UNet(spatial_dims=2, in_channels=1, out_channels=1, channels=(4, 8), strides=(2,))
        self.criterion = DiceLoss(sigmoid=True)

    def training_step(self, batch, batch_idx):
        return self.criterion(self.model(batch["image"]), batch["label"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


# glue
def loss_fn(module, batch):
    return DiceLoss(sigmoid=True, reduction="none")(module.model(batch["image"]), batch["label"]).flatten()


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(Segmenter(), DataLoader(dataset, batch_size=8))
