"""Trainer of tests: on the CPU, with neither checkpoints nor progress bars."""

import lightning.pytorch as pl


def quiet_trainer(**settings):
    return pl.Trainer(
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
