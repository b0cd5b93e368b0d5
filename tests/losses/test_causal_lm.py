import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stagewise.errors import LossContractError
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.losses.contract import evaluate
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from tests.lm_families import SETTINGS, VOCAB, build

UNSHIFTED = {"BartForCausalLM", "MBartForCausalLM", "XLNetLMHeadModel"}


def drawn(*shape):
    return torch.randint(4, VOCAB, shape)


def losses_of(model, batch):
    with torch.no_grad():
        return evaluate(causal_lm_loss, model, batch)


def test_equals_a_plain_loop():
    model, ids = build("GPTNeoXForCausalLM"), drawn(3, 7)
    losses, mask = causal_lm_loss(model, ids)
    log_probabilities = model(input_ids=ids).logits.log_softmax(-1)
    assert mask.all()
    for sample in range(3):
        for position in range(6):
            want = -log_probabilities[sample, position, ids[sample, position + 1]]
            assert losses[sample, position].item() == pytest.approx(want.item(), abs=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_mean_is_the_loss_of_the_model_itself_with_ignored_labels_and_padding_on_the_right(name):
    model, ids = build(name), drawn(4, 9)
    attention = torch.ones_like(ids)
    attention[1, 6:] = 0
    ids[1, 6:] = 1
    labels = ids.masked_fill(attention == 0, -100)
    labels[2, 2:5] = -100
    batch = {"input_ids": ids, "attention_mask": attention, "labels": labels}
    found = losses_of(model, batch)
    assert found.mean().item() == pytest.approx(model(**batch).loss.item(), abs=1e-5)
    # Entry k is of token k + 1, or of token k where the model's own loss has no shift.
    expected = labels != -100
    assert torch.equal(found.mask, expected if name in UNSHIFTED else expected[:, 1:])


# What BART's family and XLNet learn of positions, or of all tokens, they learn with the padding.
TEXT_ALONE = [name for name in SETTINGS if name not in {"BartForCausalLM", "MBartForCausalLM", "XLNetLMHeadModel"}]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", TEXT_ALONE)
def test_padding_on_either_side_gives_the_losses_of_the_text_alone(name, side):
    model, ids = build(name), drawn(2, 6)
    pads = torch.full((2, 3), 1)
    on_left = side == "left"
    batch = {"input_ids": torch.cat([pads, ids] if on_left else [ids, pads], dim=1)}
    batch["attention_mask"] = torch.cat([pads * 0, ids * 0 + 1] if on_left else [ids * 0 + 1, pads * 0], dim=1)
    batch["labels"] = batch["input_ids"].clone()  # padding is ignored though the labels name it
    found, alone = losses_of(model, batch), losses_of(model, ids)
    assert found.mask.sum() == 10
    text = found.values[found.mask].view(2, 5)
    torch.testing.assert_close(text, alone.values, atol=2e-5, rtol=1e-4)


def test_positions_of_the_batch_go_before_those_of_the_mask():
    model, ids = build("GPT2LMHeadModel"), drawn(2, 6)
    positions = torch.arange(6).flip(0).expand(2, -1)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": positions}
    own = model(**batch, labels=ids).loss.item()
    assert losses_of(model, batch).mean().item() == pytest.approx(own, abs=1e-5)
    assert own != pytest.approx(losses_of(model, ids).mean().item(), abs=1e-2)


@pytest.mark.parametrize("use_cache", [True, False])
def test_packed_documents_have_the_losses_that_the_model_has_for_them(use_cache):
    model = build("LlamaForCausalLM", use_cache=use_cache)
    document = drawn(5, 6)
    positions = torch.arange(6).repeat(2).expand(5, -1)
    batch = {"input_ids": torch.cat([document, document], dim=1), "position_ids": positions}
    own = model(**batch, labels=batch["input_ids"]).loss.item()
    found = losses_of(model, batch)
    assert found.mean().item() == pytest.approx(own, abs=1e-5)
    without = losses_of(model, {"input_ids": batch["input_ids"]})
    assert (found.values[:, 6:] - without.values[:, 6:]).abs().max() > 1e-3
    # Without a cache transformers keeps them apart: the second has the losses of the first.
    same = torch.allclose(found.values[:, 6:], found.values[:, :5], atol=1e-5)
    assert same == (not use_cache)


@pytest.mark.slow
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_engines_agree_on_packed_rows(engine, use_cache):
    model = build("LlamaForCausalLM", use_cache=use_cache)
    batch = {"input_ids": drawn(6, 8), "position_ids": torch.arange(4).repeat(2).expand(6, -1).contiguous()}
    trace = run_chains(
        model,
        causal_lm_loss,
        observed=batch,
        sampling=batch,
        config=SGLDConfig(
            lr=1e-4,
            nbeta=10.0,
            localization=100.0,
            num_chains=2,
            num_draws=2,
            num_burnin_steps=0,
            num_steps_bw_draws=1,
            batch_size=4,
            drift="plain",
            engine=engine,
        ),
    )
    assert trace.engine == engine
    torch.testing.assert_close(torch.tensor(trace.anchor_loss), losses_of(model, batch).values, atol=1e-5, rtol=1e-4)
    assert len(trace.chains) == 2


def test_a_four_dimensional_mask_and_token_types_reach_the_model():
    model, ids = build("BertLMHeadModel"), drawn(3, 6)
    blocks = torch.block_diag(torch.ones(3, 3), torch.ones(3, 3)).tril().bool()
    visible = torch.where(blocks, 0.0, torch.finfo(torch.float32).min).expand(3, 1, 6, 6)
    types = torch.tensor([0, 0, 0, 1, 1, 1]).expand(3, -1)
    batch = {"input_ids": ids, "attention_mask": visible, "token_type_ids": types}
    found = losses_of(model, batch)
    assert found.mean().item() == pytest.approx(model(**batch, labels=ids).loss.item(), abs=1e-5)
    for left_out in ("attention_mask", "token_type_ids"):
        fewer = {name: value for name, value in batch.items() if name != left_out}
        assert abs(losses_of(model, fewer).mean() - found.mean()) > 1e-3


def test_embeddings_in_place_of_ids_give_the_losses_of_the_ids():
    model, ids = build("LlamaForCausalLM"), drawn(2, 6)
    embeddings = model.get_input_embeddings()(ids).detach()
    found = losses_of(model, {"inputs_embeds": embeddings, "labels": ids})
    torch.testing.assert_close(found.values, losses_of(model, ids).values)
    with pytest.raises(LossContractError, match="no labels beside inputs_embeds"):
        causal_lm_loss(model, {"inputs_embeds": embeddings})


def test_images_reach_a_decoder_of_images_and_text():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3, image_seq_length=4, vision_feature_layer=-1
    )
    model = LlavaForConditionalGeneration(config).eval()
    ids = drawn(3, 9)
    ids[:, :4] = 3
    batch = {"input_ids": ids, "pixel_values": torch.randn(3, 3, 8, 8), "labels": ids.masked_fill(ids == 3, -100)}
    assert losses_of(model, batch).mean().item() == pytest.approx(model(**batch).loss.item(), abs=1e-5)


def test_what_would_change_the_form_of_outputs_and_what_the_model_does_not_take_stay_behind():
    model, ids = build("LlamaForCausalLM"), drawn(3, 6)
    batch = {"input_ids": ids, "logits_to_keep": 1, "return_dict": False, "num_items_in_batch": 3, "text": ["a"] * 3}
    batch |= {"attention_mask": None, "special_tokens_mask": torch.zeros_like(ids), "labels": ids.to(torch.uint8)}
    torch.testing.assert_close(losses_of(model, batch).values, losses_of(model, ids).values)


@pytest.mark.parametrize("form", [tuple, list])
def test_ids_alone_in_a_tuple_are_ids(form):
    model, ids = build("LlamaForCausalLM"), drawn(3, 6)
    torch.testing.assert_close(losses_of(model, form([ids])).values, losses_of(model, ids).values)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((torch.ones(2, 3), torch.ones(2, 3)), "got a batch of type tuple"),
        ({"tokens": torch.ones(2, 3)}, r"got a batch of names \['tokens'\]"),
        ({"input_ids": torch.ones(2, 3)}, r"got torch.float32 \[2, 3\] to predict"),
        ({"input_ids": [[1, 2], [3]]}, "got list to predict"),
    ],
)
def test_other_batches_are_refused_with_what_works(batch, words):
    with pytest.raises(LossContractError, match=words + r".*; expected .*"):
        causal_lm_loss(build("LlamaForCausalLM"), batch)


class Stretched(nn.Module):
    """Returns more logits than there are labels."""

    config = None

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCAB, VOCAB)

    def forward(self, input_ids):
        return (self.table(torch.cat([input_ids, input_ids], dim=1)),)


def test_logits_that_do_not_fit_the_labels_are_refused_and_not_aligned_by_guess():
    with pytest.raises(LossContractError, match=r"logits of shape \[2, 10, 40\] from Stretched for labels .* \[2, 5\]"):
        causal_lm_loss(Stretched(), drawn(2, 5))


class PromptTuned(nn.Module):
    """What peft's prompt tuning does: trained embeddings before those of the text."""

    def __init__(self, model, num_tokens=3):
        super().__init__()
        self.base_model, self.num_tokens = model, num_tokens
        self.prompt = nn.Parameter(torch.randn(num_tokens, model.config.hidden_size))

    @property
    def config(self):
        return self.base_model.config

    def get_base_model(self):
        return self.base_model

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        prompt = self.prompt.expand(len(input_ids), -1, -1)
        embeddings = torch.cat([prompt, self.base_model.get_input_embeddings()(input_ids)], dim=1)
        if attention_mask is not None:
            attention_mask = F.pad(attention_mask, (self.num_tokens, 0), value=1)
        if labels is not None:
            labels = F.pad(labels, (self.num_tokens, 0), value=-100)
        return self.base_model(inputs_embeds=embeddings, attention_mask=attention_mask, labels=labels, **kwargs)


PromptTuned.__name__, PromptTuned.__module__ = "PeftModelForCausalLM", "peft.peft_model"


def test_behind_trained_virtual_tokens_the_first_token_of_the_text_counts_too():
    model, ids = PromptTuned(build("LlamaForCausalLM")), drawn(4, 7)
    attention = torch.ones_like(ids)
    attention[0, 5:] = 0
    labels = ids.masked_fill(attention == 0, -100)
    labels[1, :3] = -100
    batch = {"input_ids": ids, "attention_mask": attention, "labels": labels}
    found = losses_of(model, batch)
    assert torch.equal(found.mask, labels != -100)
    assert found.mean().item() == pytest.approx(model(**batch).loss.item(), abs=1e-5)
