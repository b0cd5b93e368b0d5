"""Causal language model from Hugging Face as a LightningModule."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from stagewise.batches import Batch
from stagewise.errors import InputError, first_line
from stagewise.losses.causal_lm import causal_lm_loss


def build_model(
    model_type: str = "gpt_neox",
    *,
    config: dict[str, Any] | None = None,
    pretrained: str | None = None,
    init_std: float | None = None,
) -> nn.Module:
    """Builds a Hugging Face causal language model, from scratch or from a checkpoint.

    Args:
        model_type: architecture, by its name in ``transformers``: ``gpt_neox``, ``gpt2``, ``llama``, ...
        config: settings of that architecture's configuration.
        pretrained: name or path of a checkpoint to load instead; ``config`` then overrides settings of the checkpoint.
        init_std: standard deviation of the initial weights; the architecture's default if None.

    Raises:
        InputError: an unknown architecture, unknown settings, or a checkpoint that cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = dict(config or {})
    if pretrained is not None:
        try:
            return AutoModelForCausalLM.from_pretrained(pretrained, **settings)
        except (OSError, ValueError) as error:
            raise InputError(
                f"got pretrained {pretrained!r}, which cannot be loaded ({first_line(error)}); expected a "
                "local folder or the name of a model on the Hugging Face hub; check the name and the connection"
            ) from error
    if init_std is not None:
        settings.setdefault("initializer_range", init_std)
    try:
        built = AutoConfig.for_model(model_type, **settings)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"got model_type {model_type!r} with config {settings} ({first_line(error)}); expected an "
            "architecture of transformers and settings of its configuration"
        ) from error
    # transformers silently accepts unknown settings: a misspelt one would train another model than intended.
    fields = set(type(built)().to_dict()) | set(built.attribute_map) | {"attn_implementation", "rotary_pct"}
    unknown = sorted(set(settings) - fields)
    if unknown:
        raise InputError(
            f"got unknown settings {unknown} for model_type {model_type!r}; expected settings of "
            f"{type(built).__name__}; correct the names in model.init_args.config"
        )
    try:
        return AutoModelForCausalLM.from_config(built)
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(
            f"got model_type {model_type!r}, of which no causal language model can be built "
            f"({first_line(error)}); expected a decoder such as gpt_neox, gpt2 or llama"
        ) from error


class CausalLM(pl.LightningModule):
    """Causal language model trained with AdamW and a linear warm-up, with a per-token loss.

    Attributes:
        model: the Hugging Face model.
        intervention_weights: weighted mean loss, set by a callback that intervenes; else None.
    """

    intervention_weights: Callable[[tuple[Tensor, Tensor], Mapping[str, Tensor]], Tensor] | None = None

    def __init__(
        self,
        model_type: str = "gpt_neox",
        config: dict[str, Any] | None = None,
        pretrained: str | None = None,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        init_std: float | None = 0.1,
    ) -> None:
        """Builds the model; its weights come from the global seed (``seed_everything``).

        Args:
            model_type: architecture, by its name in ``transformers``: ``gpt_neox``, ``gpt2``, ``llama``, ...
            config: settings of that architecture's configuration.
            pretrained: name or path of a checkpoint to start from instead.
            lr: AdamW's learning rate after the warm-up.
            betas: AdamW's decay rates.
            weight_decay: AdamW's weight decay.
            warmup_steps: steps over which the learning rate rises linearly from ``lr / warmup_steps``; 0 for none.
            init_std: standard deviation of the initial weights of a model from scratch; the architecture's default if
                None.

        Raises:
            InputError: a setting out of range, or a model that cannot be built.
        """
        super().__init__()
        if lr <= 0 or warmup_steps < 0:
            raise InputError(f"got lr {lr} and warmup_steps {warmup_steps}; expected lr > 0 and warmup_steps >= 0")
        self.save_hyperparameters()
        self.lr, self.betas, self.weight_decay, self.warmup_steps = lr, betas, weight_decay, warmup_steps
        self.model = build_model(model_type, config=config, pretrained=pretrained, init_std=init_std)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Returns the logits ``[sample, position, token]`` of token ids ``[sample, position]``."""
        return self.model(input_ids=input_ids, use_cache=False).logits

    def per_sample_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns losses ``[sample, position - 1]`` in nats, and their mask, as the loss contract requires.

        Args:
            batch: ``{"input_ids": [sample, position]}``.
        """
        return causal_lm_loss(self.model, batch)

    def _mean_loss(self, batch: Batch) -> Tensor:
        losses, mask = self.per_sample_loss(batch)
        return losses.sum() / mask.sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the mean loss of a batch, nats per token; logged as ``train/loss``.

        While an ``InterventionCallback`` reweights losses, this is the weighted mean; the batch then has ``groups``,
        which maps names to bool ``[sample]`` or ``[sample, position - 1]``.
        """
        if self.intervention_weights is None:
            loss = self._mean_loss(batch)
        else:
            loss = self.intervention_weights(self.per_sample_loss(batch), batch.get("groups", {}))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the mean loss, nats per token, as ``val/loss``."""
        self.log("val/loss", self._mean_loss(batch), prog_bar=True, batch_size=len(batch["input_ids"]))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Returns AdamW on all parameters; the learning rate rises linearly over ``warmup_steps``, then is constant."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)
        scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, self.warmup_steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Refuses data that do not fit the model.

        Raises:
            InputError: the data module's vocabulary or context exceeds the model's.
        """
        data = getattr(self.trainer, "datamodule", None)
        for ours, theirs in (("vocab_size", "vocab_size"), ("max_position_embeddings", "context")):
            have, need = getattr(self.model.config, ours, None), getattr(data, theirs, None)
            if have is not None and need is not None and need > have:
                raise InputError(
                    f"got a model with {ours} {have} for data with {theirs} {need}; expected at least as much; "
                    f"set model.init_args.config.{ours} to {need}"
                )
