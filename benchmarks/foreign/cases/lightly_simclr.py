"""lightly: SimCLR, whose loss of one pair depends on which others are in the batch."""

import lightning as L
import torch
import torch.nn.functional as F
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch.utils.data import DataLoader, TensorDataset

REQUIRES = ("lightly==1.6.0", "torch==2.14.1", "torchvision==0.29.1")
TRAINED = "SimCLR on torchvision's ShuffleNet, 16 pairs of views"
LIMITS = "A contrastive loss is not a loss of single samples."

views = torch.rand(2, 16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class SimCLR(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = torchvision.models.shufflenet_v2_x0_5(num_classes=64)
        self.projection = SimCLRProjectionHead(64, 32, 16)
        self.criterion = NTXentLoss(temperature=0.5)

    def forward(self, images):
        return self.projection(self.backbone(images))

    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), self(batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


# glue
def loss_fn(module, batch):
    z0, z1 = (F.normalize(module(item), dim=1) for item in batch)
    return F.cross_entropy(z0 @ z1.T / 0.5, torch.arange(len(z0)), reduction="none")


# end of glue

ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    loader = DataLoader(TensorDataset(*views), batch_size=16)
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(SimCLR(), loader)
