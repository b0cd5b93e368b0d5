"""lightly: SimSiam, two views of each image."""

import lightning as L
import torch
import torch.nn.functional as F
import torchvision
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
from torch.utils.data import DataLoader, TensorDataset

REQUIRES = ("lightly==1.6.0", "torch==2.14.1", "torchvision==0.29.1")
TRAINED = "SimSiam on torchvision's ShuffleNet, 16 pairs of views, batch normalisation"

views = torch.rand(2, 16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class SimSiam(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = torchvision.models.shufflenet_v2_x0_5(num_classes=64)
        self.projection, self.prediction = SimSiamProjectionHead(64, 32, 32), SimSiamPredictionHead(32, 16, 32)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, images):
        projected = self.projection(self.backbone(images))
        return projected.detach(), self.prediction(projected)

    def training_step(self, batch, batch_idx):
        (z0, p0), (z1, p1) = self(batch[0]), self(batch[1])
        return 0.5 * (self.criterion(z0, p1) + self.criterion(z1, p0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


# glue
def loss_fn(module, batch):
    (z0, p0), (z1, p1) = module(batch[0]), module(batch[1])
    return -0.5 * (F.cosine_similarity(z0, p1) + F.cosine_similarity(z1, p0))


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    loader = DataLoader(TensorDataset(*views), batch_size=16)
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(SimSiam(), loader)
