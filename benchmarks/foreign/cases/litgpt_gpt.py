"""litgpt: its GPT in a module, trained from scratch."""

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from litgpt import GPT, Config
from litgpt.utils import chunked_cross_entropy
from torch.utils.data import DataLoader

REQUIRES = ("litgpt==0.5.13",)
TRAINED = "GPT of 2 layers, rotary positions, 32 sequences of 17 tokens"

tokens = torch.randint(0, 100, (32, 17), generator=torch.Generator().manual_seed(1))


class Pretraining(L.LightningModule):
    def __init__(self):
        super().__init__()
        sizes = {"vocab_size": 100, "padded_vocab_size": 100, "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 32}
        self.model = GPT(Config(**sizes))

    def training_step(self, batch, batch_idx):
        return chunked_cross_entropy(self.model(batch[:, :-1]), batch[:, 1:], chunk_size=0)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


# glue
def loss_fn(module, batch):
    return F.cross_entropy(module.model(batch[:, :-1]).transpose(1, 2), batch[:, 1:], reduction="none")


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    rows: Any = list(tokens)
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(Pretraining(), DataLoader(rows, batch_size=32))
