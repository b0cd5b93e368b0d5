"""Watches an induction head form: attention scores and behaviour on fixed probe sequences, on their own cadence."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from stagewise.callbacks.faults import PROBE, Faults, OnError
from stagewise.callbacks.hosts import HostCallback
from stagewise.callbacks.probe_values import log_values
from stagewise.checks.bounds import check_arguments
from stagewise.checks.ranges import PositiveInt
from stagewise.errors import InputError
from stagewise.isolation import untouched
from stagewise.lm.induction import induction_scores, repeated_random
from stagewise.losses.language_models import causal_lm_name
from stagewise.reporting import tags


class InductionCallback(HostCallback):
    """Logs ``induction/{prefix_matching,previous_token,icl_score,loss_gap,copying}`` every few steps.

    The scores come from fixed sequences of repeated random tokens, drawn once from an own seed; see
    :mod:`stagewise.lm.induction` for each definition. Both attention scores are those of the best head; ``copying`` is
    that of the head with the best prefix matching, and is left out for architectures of unknown layout. Training is
    left untouched. Works on any LightningModule that holds a Hugging Face causal language model.

    Attributes:
        tables: the scores of the last probe that belong to heads, by name, each ``[layer, head]``.
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
        """Set cadence and probe sequences.

        Args:
            every_n_steps: steps of ``trainer.global_step`` between probes; the initial weights are probed too.
            num_sequences: probe sequences.
            segment_length: random tokens in a segment, at most; shortened where the model's context does not hold
                ``copies`` of them (a context of 32: 8 tokens).
            copies: how often the segment appears.
            bos_token_id: token put first; None for models trained without one.
            seed: of the probe sequences.
            on_error: ``"warn"`` tells of a fault once and trains on, ``"raise"`` ends the run with it.

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
        """True if the weights after ``step`` updates are to be probed; override for another schedule."""
        return step % self.every_n_steps == 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the probe sequences and try them once.

        Raises:
            InputError: the module holds no causal language model, or one that returns no attention weights.
        """
        name = causal_lm_name(pl_module)
        if name is None:
            raise InputError(
                f"got {type(pl_module).__name__}, which holds no Hugging Face causal language model; expected one as "
                "an attribute of the module; leave InductionCallback out for other modules"
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
        """Probe the initial weights."""
        if trainer.global_step == 0:
            self._probe(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probe the weights after an update, once for each step."""
        self._probe(trainer, pl_module)
