import lightning.pytorch as pl
import pytest
import torch

from stagewise.errors import InputError
from stagewise.lm import CausalLM, SyntheticData
from stagewise.lm.module import build_model
from stagewise.losses.contract import check_loss, resolve_loss

NEOX = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
OTHERS = {
    "gpt_neox": NEOX,
    "llama": NEOX,
    "gpt2": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_its_loss_keeps_the_contract_for_each_architecture(kind):
    module = CausalLM(kind, OTHERS[kind]).eval()
    ids = torch.randint(64, (3, 32), generator=torch.Generator().manual_seed(0))
    losses = check_loss(resolve_loss(module), module, {"input_ids": ids})
    assert losses.values.shape == (3, 31)
    logprobs = module(ids).log_softmax(-1)
    expected = -logprobs[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(losses.values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 8), (0.5, 4)])
def test_rotary_embeddings_cover_the_asked_share_of_the_head(share, expected):
    module = CausalLM("gpt_neox", {**NEOX, "rope_parameters": {**ROPE, "partial_rotary_factor": share}})
    assert 2 * len(module.model.gpt_neox.rotary_emb.inv_freq) == expected
    assert module.model.gpt_neox.layers[0].attention.rotary_ndims == expected
    older = CausalLM("gpt_neox", {**NEOX, "rotary_pct": share})
    assert older.model.gpt_neox.layers[0].attention.rotary_ndims == expected


def test_initial_weights_have_the_asked_deviation_and_follow_the_global_seed():
    torch.manual_seed(4)
    first = CausalLM("gpt_neox", {**NEOX, "hidden_size": 64}, init_std=0.1)
    torch.manual_seed(4)
    second = CausalLM("gpt_neox", {**NEOX, "hidden_size": 64}, init_std=0.1)
    assert first.model.gpt_neox.embed_in.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_learning_rate_rises_linearly_and_stays():
    module = CausalLM("gpt_neox", NEOX, lr=0.2, warmup_steps=4)
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2])
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.99)


def _trainer(**settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", max_steps=30, enable_model_summary=False, **quiet, **settings)


def test_it_trains_and_validates_in_a_real_trainer():
    torch.manual_seed(0)
    module = CausalLM("gpt_neox", NEOX)
    trainer = _trainer()
    trainer.fit(module, SyntheticData(num_sequences=960, num_val=32))
    assert trainer.global_step == 30
    assert trainer.callback_metrics["train/loss"] < 4.1
    assert trainer.callback_metrics["val/loss"] < 4.1


def test_data_that_the_model_cannot_read_is_refused_before_training():
    for settings in ({"vocab_size": 128}, {"context": 48}):
        with pytest.raises(InputError, match=r"model.init_args.config"):
            _trainer().fit(CausalLM("gpt_neox", NEOX), SyntheticData(num_sequences=64, **settings))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_type": "gpt_neoxx"}, "gpt_neoxx"),
        ({"config": {"hidden_sise": 16}}, "hidden_sise"),
        ({"model_type": "vit"}, "no causal language model"),
        ({"pretrained": "/nowhere/at/all"}, "cannot be loaded"),
    ],
)
def test_models_that_cannot_be_built_are_refused(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        build_model(**arguments)
    assert "\n" not in str(caught.value)


def test_a_saved_model_is_loaded_again(tmp_path):
    module = CausalLM("gpt_neox", NEOX)
    module.model.save_pretrained(tmp_path)
    again = CausalLM(pretrained=str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    with pytest.raises(InputError, match="lr 0"):
        CausalLM("gpt_neox", NEOX, lr=0)
