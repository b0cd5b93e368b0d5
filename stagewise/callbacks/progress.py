"""Tells the training bar what probes are doing."""

from typing import Any

from lightning.pytorch import Trainer

from stagewise.callbacks.hosts import is_a


def show_on_bar(trainer: Trainer, text: str) -> None:
    """Put a text beside the epoch on Lightning's own training bar; other bars are left alone."""
    bar: Any = trainer.progress_bar_callback
    if bar is None or not getattr(bar, "is_enabled", False):
        return
    description = f"Epoch {trainer.current_epoch} | {text}"
    if is_a(bar, "TQDMProgressBar"):
        bar.train_progress_bar.set_description(description)
    elif is_a(bar, "RichProgressBar") and bar.progress is not None and bar.train_progress_bar_id is not None:
        bar.progress.update(bar.train_progress_bar_id, description=description)
        bar.refresh()
