"""A tiny language model, its data and a run of a few steps, for tests of chains that move a part of it."""

from dataclasses import replace

import lightning.pytorch as pl
import torch

from stagewise import ProbeSchedule
from stagewise.lm.data import TokenRows
from stagewise.lm.module import CausalLM
from stagewise.loading.loader import ResumableLoader
from tests.short_chains import SHORT

VOCAB, CONTEXT = 12, 8
CONFIG = {
    "vocab_size": VOCAB,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
}
HEAD = "layer1.head0"
SGLD = replace(SHORT, localization=20, num_chains=2, num_draws=4, batch_size=8)
AUTO = replace(SGLD, lr="auto", localization="auto")
SCHEDULE = ProbeSchedule(every_n_steps=2)


def language_model(model_type="gpt_neox", lr=0.01, config=CONFIG, init_std=0.3):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return CausalLM(model_type, config=config, lr=lr, init_std=init_std)


def rows():
    return torch.randint(VOCAB, (40, CONTEXT), generator=torch.Generator().manual_seed(2))


def fit(folder, module, callbacks, *, max_steps=6, ckpt_path=None):
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, pl.callbacks.ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, ResumableLoader(TokenRows(rows()), 8, seed=3), ckpt_path=ckpt_path, weights_only=True)
    return trainer
