"""Induction scores during training, on fixed probe sequences and a schedule of their own."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from stagewise.callbacks.fault_log import PROBE, Faults, OnError
from stagewise.callbacks.hosts import HostCallback
from stagewise.callbacks.logger_writers import log_values
from stagewise.callbacks.sharded_run import refuse_shards
from stagewise.checks.bounds import check_arguments
from stagewise.checks.ranges import PositiveInt
from stagewise.errors import InputError
from stagewise.isolation import untouched
from stagewise.lm.induction import induction_scores, repeated_random
from stagewise.losses.language_models import causal_lm_name
from stagewise.reporting import tags


class InductionCallback(HostCallback):
    """Logs ``induction/{prefix_matching,previous_token,icl_score,loss_gap,copying}`` every few steps.

    The scores are computed on fixed sequences of repeated random tokens, drawn once from their own seed; see
    :mod:`stagewise.lm.induction` for definitions. Both attention scores are those of the best head; ``copying`` is that
    of the head with the best prefix matching, and is left out for unknown architectures. Training is not affected.
    Works with any LightningModule that holds a Hugging Face causal language model.

    Attributes:
        tables: scores of heads at the last probe by name, each ``[layer, head]``.
    """

    def __init__(
        self,
        every_n_steps: PositiveInt = 25,
        num_sequences: PositiveInt = 32,
        segment_length: int = 25,
        copies: PositiveInt = 4,
        bos_token_id: int | None = None,
        seed: int = 0,
        on_error: OnError = "warn",
    ) -> None:
        """Sets the schedule and the probe sequences.

        Args:
            every_n_steps: steps of ``trainer.global_step`` between probes; the initial weights are probed too.
            num_sequences: probe sequences.
            segment_length: random tokens in a segment, at most; fewer if the model's context does not hold
                ``copies`` of them (a context of 32: 8 tokens).
            copies: number of times the segment occurs, including the first.
            bos_token_id: first token of each sequence; None for models trained without one.
            seed: of the probe sequences.
            on_error: ``"warn"`` reports an error once and continues training, ``"raise"`` raises it.

        Raises:
            InputError: a setting is below 1.
        """
        check_arguments("InductionCallback", InductionCallback.__init__, locals())
        self.every_n_steps = every_n_steps
        self.num_sequences, self.segment_length, self.copies = num_sequences, segment_length, copies
        self.bos_token_id, self.seed = bos_token_id, seed
        self.tables: dict[str, Tensor] = {}
        self._name = ""
        self._ids = torch.empty(0, dtype=torch.int64)
        self._length = 0
        self._last_step = -1
        self._faults = Faults(on_error)

    def due(self, step: int) -> bool:
        """Returns True if the weights after ``step`` updates are to be probed; override for another schedule."""
        return step % self.every_n_steps == 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the probe sequences and runs the model on them once.

        Raises:
            InputError: the module has no causal language model, or one without attention weights; or weights in shards.
        """
        refuse_shards(trainer, pl_module, "InductionCallback")
        name = causal_lm_name(pl_module)
        if name is None:
            raise InputError(
                f"got {type(pl_module).__name__} without a Hugging Face causal language model; expected one as "
                "an attribute of the module; remove InductionCallback for other modules"
            )
        self._name = name
        config: Any = pl_module.get_submodule(name).config
        context = getattr(config, "max_position_embeddings", None) or self.copies * self.segment_length + 1
        self._ids, self._length = repeated_random(
            self.num_sequences,
            vocab_size=config.vocab_size,
            context=context,
            segment_length=self.segment_length,
            copies=self.copies,
            bos_token_id=self.bos_token_id,
            seed=self.seed,
        )
        self._scores(trainer, pl_module)

    def _scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        model = pl_module.get_submodule(self._name)
        ids = self._ids.to(pl_module.device)
        with untouched(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            scores, self.tables = induction_scores(model, ids, self._length, bos=self.bos_token_id is not None)
        return scores

    def _probe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        step = trainer.global_step
        if step == self._last_step or not self.due(step):
            return
        self._last_step = step
        with self._faults.contained(PROBE, step):
            scores = self._scores(trainer, pl_module)
            values = {tags.induction(name): value for name, value in scores.items()}
            log_values(trainer, values, step, self._faults)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probes the initial weights."""
        if trainer.global_step == 0:
            self._probe(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probes after each due optimizer step."""
        self._probe(trainer, pl_module)
