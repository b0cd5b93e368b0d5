import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from stagewise.callbacks.induction import InductionCallback
from stagewise.errors import InputError
from stagewise.lm import CausalLM, SyntheticData
from stagewise.lm.induction import induction_scores, repeated_random

COMMON = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "gpt_neox": {**COMMON, "intermediate_size": 32, "max_position_embeddings": 32, "hidden_dropout": 0.1},
    "llama": {**COMMON, "intermediate_size": 32, "max_position_embeddings": 32},
    "gpt2": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
}
TAGS = {f"induction/{name}" for name in ("prefix_matching", "previous_token", "icl_score", "loss_gap", "copying")}


def _fit(callbacks, kind="gpt_neox", module=None, logger=False, **settings):
    torch.manual_seed(0)
    module = module or CausalLM(kind, CONFIGS[kind])
    settings = {"max_steps": 7, "enable_progress_bar": False, "enable_model_summary": False, **settings}
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=logger,
        callbacks=callbacks,
        enable_checkpointing=False,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(module, SyntheticData(num_sequences=640, num_val=32))
    return trainer, module


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_scores_belong_to_the_weights_after_their_step(kind):
    callback = InductionCallback(every_n_steps=7)
    trainer, module = _fit([callback], kind)
    ids, length = repeated_random(32, vocab_size=64, context=32)
    expected, tables = induction_scores(module.model.eval(), ids, length)
    for name, value in expected.items():
        assert trainer.callback_metrics[f"induction/{name}"].item() == pytest.approx(value, abs=1e-6)
    torch.testing.assert_close(callback.tables["prefix_matching"], tables["prefix_matching"])


def test_tags_are_written_at_global_steps_once_each(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    _fit([InductionCallback(every_n_steps=3)], logger=logger, accumulate_grad_batches=2)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert set(events.Tags()["scalars"]) >= TAGS
    for tag in TAGS:
        assert [event.step for event in events.Scalars(tag)] == [0, 3, 6]


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.1}])
def test_training_is_bit_identical_with_and_without_the_callback(settings):
    plain, without = _fit([], **settings)
    probed, watched = _fit([InductionCallback(every_n_steps=2)], **settings)
    assert all(torch.equal(a, b) for a, b in zip(without.parameters(), watched.parameters(), strict=True))
    assert torch.equal(plain.callback_metrics["train/loss"], probed.callback_metrics["train/loss"])
    assert watched.model.config._attn_implementation == without.model.config._attn_implementation


class _NoLanguageModel(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 1)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self.layer(batch["input_ids"].float()).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_module_without_a_language_model_is_refused_before_training():
    module = _NoLanguageModel()
    with pytest.raises(InputError, match="without a Hugging Face causal language model") as caught:
        _fit([InductionCallback()], module=module)
    assert module.steps == 0
    assert "\n" not in str(caught.value)


def test_a_model_without_attention_is_refused_before_training():
    module = CausalLM("mamba", {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1})
    with pytest.raises(InputError, match="no attention weights"):
        _fit([InductionCallback()], module=module)


def test_a_context_too_short_and_bad_settings_are_refused():
    with pytest.raises(InputError, match="lengthen the context"):
        _fit([InductionCallback(copies=17)])
    with pytest.raises(InputError, match="every_n_steps=0"):
        InductionCallback(every_n_steps=0)
