"""PyTorch Geometric: classification of graphs of different sizes."""

import lightning as L
import torch
import torch.nn.functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool

from stagewise import CollatedLoss

REQUIRES = ("torch-geometric==2.8.1",)
TRAINED = "GCN classifier, 32 graphs of 4 to 8 nodes"

generator = torch.Generator().manual_seed(1)


def graph(number):
    nodes = 4 + number % 5
    ring = torch.arange(nodes)
    features = torch.randn(nodes, 3, generator=generator)
    return Data(x=features, edge_index=torch.stack([ring, ring.roll(1)]), y=torch.tensor([number % 2]))


graphs = [graph(number) for number in range(32)]


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.conv, self.head = GCNConv(3, 16), torch.nn.Linear(16, 2)

    def forward(self, batch):
        return self.head(global_mean_pool(self.conv(batch.x, batch.edge_index).relu(), batch.batch, batch.num_graphs))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch.y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


# glue
def loss_fn(module, batch):
    return F.cross_entropy(module(batch), batch.y, reduction="none")


# end of glue

ARGUMENTS = {"loss_fn": CollatedLoss(graphs, loss_fn, Batch.from_data_list)}


def train(callbacks):
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(Classifier(), DataLoader(graphs, batch_size=32))
