import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, PreTrainedModel

from stagewise.errors import LossContractError
from stagewise.losses.contract import check_loss, evaluate, resolve_loss
from stagewise.losses.language_models import causal_lm_name, is_causal_architecture, trained_causal_lm
from tests.lm_families import SETTINGS, SIZE, VOCAB, build
from tests.losses.test_causal_lm import PromptTuned

GPT2 = {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 1, "n_head": 2}


def holding(**models):
    module = nn.Module()
    for name, model in models.items():
        setattr(module, name, model)
    return module


@pytest.mark.parametrize("name", SETTINGS)
def test_a_causal_model_is_found_as_the_module_itself_and_inside(name):
    model = build(name)
    assert causal_lm_name(model) == ""
    assert causal_lm_name(holding(inner=nn.ModuleDict({"lm": model}))) == "inner.lm"


def test_a_model_without_a_head_is_none():
    model = GPT2Model(GPT2Config(**GPT2))
    assert causal_lm_name(model) is None
    with pytest.raises(TypeError, match="no per-sample loss"):
        resolve_loss(model)


BART = SETTINGS["BartForCausalLM"]
T5 = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
OTHERS = {
    "BertForMaskedLM": (SIZE, "a masked language model"),
    "RobertaForMaskedLM": (SIZE, "a masked language model"),
    "BertForPreTraining": (SIZE, "a masked language model"),
    "BartForConditionalGeneration": (BART, "a sequence-to-sequence model"),
    "MBartForConditionalGeneration": (BART, "a sequence-to-sequence model"),
    "T5ForConditionalGeneration": (T5, "a sequence-to-sequence model"),
    "XLMWithLMHeadModel": (
        {"vocab_size": VOCAB, "emb_dim": 16, "n_layers": 1, "n_heads": 2},
        "trained causally or masked",
    ),
    "ProphetNetForCausalLM": (
        {"vocab_size": VOCAB, "hidden_size": 16, "num_decoder_layers": 1, "num_decoder_attention_heads": 2},
        "several tokens at once",
    ),
}


def other(name):
    cls = getattr(transformers, name)
    return cls(cls.config_class(**OTHERS[name][0])).eval()


@pytest.mark.parametrize("name", OTHERS)
def test_other_language_models_are_refused_by_name_with_a_loss_to_paste(name):
    module = holding(net=other(name))
    assert causal_lm_name(module) is None
    with pytest.raises(LossContractError) as caught:
        resolve_loss(module)
    for words in (name, OTHERS[name][1], "module.net(**batch)", "loss_fn"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BartForConditionalGeneration", "T5ForConditionalGeneration"])
def test_the_loss_that_the_refusal_offers_is_that_of_the_model(name):
    module = holding(net=other(name))
    with pytest.raises(LossContractError) as caught:
        resolve_loss(module)
    scope = {"F": F}
    code = str(caught.value)
    exec(code[code.index("def loss_fn") :], scope)
    ids = torch.randint(4, VOCAB, (5, 7))
    batch = {"input_ids": ids, "labels": ids.masked_fill(torch.rand(ids.shape) < 0.5, -100)}
    losses = check_loss(scope["loss_fn"], module, batch)
    assert losses.mean().item() == pytest.approx(module.net(**batch).loss.item(), abs=1e-5)


def test_the_decoder_inside_an_encoder_decoder_is_not_the_model():
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

    small = BertConfig(**SIZE)
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(small, BertConfig(**SIZE)))
    assert any(type(module).__name__ == "BertLMHeadModel" for module in model.modules())
    assert causal_lm_name(holding(net=model)) is None
    with pytest.raises(LossContractError, match="EncoderDecoderModel, a sequence-to-sequence model"):
        resolve_loss(model)


def test_a_frozen_teacher_is_passed_over_wherever_it_stands():
    teacher, student = build("GPT2LMHeadModel").requires_grad_(False), build("LlamaForCausalLM")
    ids = torch.randint(4, VOCAB, (3, 6))
    for module in (holding(teacher=teacher, student=student), holding(student=student, teacher=teacher)):
        assert causal_lm_name(module) == "student"
        own = student(input_ids=ids, labels=ids).loss.item()
        assert evaluate(resolve_loss(module), module, ids).mean().item() == pytest.approx(own, abs=1e-5)


def test_two_models_with_trainable_weights_are_named_with_what_to_do():
    module = holding(teacher=build("GPT2LMHeadModel"), student=build("GPT2LMHeadModel"))
    words = r"2 causal language models: teacher \(GPT2LMHeadModel\), student .*requires_grad_\(False\), or give loss_fn"
    with pytest.raises(LossContractError, match=words):
        resolve_loss(module)
    shared = build("GPT2LMHeadModel")
    assert causal_lm_name(holding(one=shared, again=shared)) == "one"


def test_one_frozen_model_is_found_all_the_same():
    assert causal_lm_name(holding(lm=build("GPT2LMHeadModel").requires_grad_(False))) == "lm"


def test_trainable_weights_beside_the_model_are_refused_and_frozen_ones_are_not():
    """As soft prompts of one's own have them, or a value head."""
    module = holding(lm=build("GPT2LMHeadModel").requires_grad_(False), prompt=nn.Embedding(3, 16))
    with pytest.raises(LossContractError, match=r"trainable weights \(prompt\.weight\) outside of its GPT2LMHeadModel"):
        trained_causal_lm(module)
    module.prompt.requires_grad_(False)
    assert trained_causal_lm(module) == "lm"


def test_prompts_of_peft_make_the_wrapper_the_model_and_adapters_inside_do_not():
    lm = build("LlamaForCausalLM").requires_grad_(False)
    tuned = PromptTuned(lm)
    module = holding(net=tuned)
    assert trained_causal_lm(module) == "net"
    ids = torch.randint(4, VOCAB, (3, 6))
    losses = check_loss(resolve_loss(module), module, ids)
    assert losses.mean().item() == pytest.approx(tuned(input_ids=ids, labels=ids).loss.item(), abs=1e-5)
    tuned.prompt.requires_grad_(False)
    assert causal_lm_name(module) == "net.base_model"


# Classes of one's own


class Subclass(GPT2LMHeadModel):
    pass


class Head(PreTrainedModel):
    """A language model that transformers knows nothing of."""

    config_class = GPT2Config

    def __init__(self, config):
        super().__init__(config)
        self.body, self.head = GPT2Model(config), nn.Linear(16, VOCAB, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids):
        return (self.head(self.body(input_ids).last_hidden_state),)


class HeadForCausalLM(Head):
    pass


class HeadForMaskedLM(Head):
    pass


def test_a_subclass_and_a_class_named_as_causal_are_causal():
    assert causal_lm_name(Subclass(GPT2Config(**GPT2))) == ""
    module = HeadForCausalLM(GPT2Config(**GPT2)).eval()
    ids = torch.randint(0, VOCAB, (3, 5))
    assert evaluate(resolve_loss(module), module, ids).values.shape == (3, 4)


def test_a_class_that_its_configuration_names_or_that_is_registered_is_causal(monkeypatch):
    config = GPT2Config(**GPT2)
    module = Head(config)
    assert causal_lm_name(module) is None
    with pytest.raises(LossContractError, match=r"Head, .* not known to be causal.*causal_lm_loss"):
        resolve_loss(module)
    config.auto_map = {"AutoModelForCausalLM": "someone/repository--modeling_head.Head"}
    assert causal_lm_name(module) == ""
    config.auto_map = {"AutoModel": "modeling_head.Head"}
    assert causal_lm_name(module) is None
    mapping = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    monkeypatch.setattr(mapping, "_extra_content", {type("Any", (), {}): Head})
    assert causal_lm_name(module) == ""


def test_a_class_named_as_masked_is_not():
    with pytest.raises(LossContractError, match="HeadForMaskedLM, a masked language model"):
        resolve_loss(HeadForMaskedLM(GPT2Config(**GPT2)))


def test_copies_have_the_losses_of_their_own_weights():
    model = build("GPT2LMHeadModel")
    ids = torch.randint(4, VOCAB, (3, 6))
    before = evaluate(resolve_loss(model), model, ids).values
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.transformer.wte.weight.mul_(2)
    assert not torch.allclose(evaluate(resolve_loss(twin), twin, ids).values, before)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("LlamaForCausalLM", True), ("BertForMaskedLM", False), ("T5ForConditionalGeneration", False), ("Mine", None)],
)
def test_architectures_are_told_by_name(name, answer):
    assert is_causal_architecture(name) is answer
