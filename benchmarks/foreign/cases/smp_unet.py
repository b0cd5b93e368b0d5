"""segmentation-models-pytorch: a loss for each pixel."""

import lightning as L
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

REQUIRES = ("segmentation-models-pytorch==0.6.0", "torch==2.14.1", "torchvision==0.29.1")
TRAINED = "Unet on MobileNet V2, losses [sample, height, width], 8 images"

generator = torch.Generator().manual_seed(1)
images = torch.rand(8, 3, 32, 32, generator=generator)
masks = (images.mean(1) > 0.5).long()


class Segmenter(L.LightningModule):
    def __init__(self):
        super().__init__()
        widths = (32, 16, 8)
        self.model = smp.Unet("mobilenet_v2", encoder_weights=None, encoder_depth=3, decoder_channels=widths, classes=2)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


# glue
def loss_fn(module, batch):
    return F.cross_entropy(module.model(batch[0]), batch[1], reduction="none")


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    loader = DataLoader(TensorDataset(images, masks), batch_size=8)
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(Segmenter(), loader)
