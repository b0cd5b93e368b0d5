"""PEFT: LoRA adapters on a small GPT-2."""

from typing import Any

import lightning as L
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

REQUIRES = ("peft==0.21.2",)
TRAINED = "LoRA on a GPT-2 of 2 layers, 32 sequences of 16 tokens"

tokens = torch.randint(0, 100, (32, 16), generator=torch.Generator().manual_seed(1))
rows: Any = [{"input_ids": row, "labels": row} for row in tokens]


class Tuner(L.LightningModule):
    def __init__(self):
        super().__init__()
        base = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=16, n_embd=16, n_layer=2, n_head=2))
        self.model = get_peft_model(base, LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True))

    def training_step(self, batch, batch_idx):
        return self.model(**batch).loss

    def configure_optimizers(self):
        return torch.optim.AdamW([weight for weight in self.parameters() if weight.requires_grad], lr=1e-2)


# glue
# end of glue

ARGUMENTS: dict[str, Any] = {}


def train(callbacks):
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(Tuner(), DataLoader(rows, batch_size=32))
