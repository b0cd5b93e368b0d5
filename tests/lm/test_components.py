import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.lm.ablation import head_ablated
from stagewise.lm.attention import look
from stagewise.lm.components import (
    component_masks,
    components,
    head_mask,
    key_value_group_mask,
    layers,
    output_projection,
)
from stagewise.lm.module import CausalLM, build_model

COMMON = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON |= {"intermediate_size": 32, "max_position_embeddings": 8}
GROUPED = {**COMMON, "num_key_value_heads": 2}
CASES = {
    "gpt_neox": ("gpt_neox", COMMON),
    "gpt2": ("gpt2", {"vocab_size": 24, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 8}),
    "llama": ("llama", {**COMMON, "num_key_value_heads": 4, "attention_bias": True}),
    "llama-wide-heads": ("llama", {**COMMON, "num_key_value_heads": 4, "head_dim": 6}),
    "llama-grouped": ("llama", GROUPED),
    "mistral-grouped": ("mistral", GROUPED),
    "qwen2-grouped": ("qwen2", GROUPED),
    "qwen3-grouped": ("qwen3", {**GROUPED, "head_dim": 8}),
    "olmo": ("olmo", {**COMMON, "num_key_value_heads": 4}),
    "olmo-grouped": ("olmo", {**GROUPED, "attention_bias": True}),
    "olmo2": ("olmo2", {**COMMON, "num_key_value_heads": 4}),
    "olmo2-grouped": ("olmo2", GROUPED),
    "olmoe": ("olmoe", {**COMMON, "num_key_value_heads": 4, "num_experts": 2, "num_experts_per_tok": 1}),
    "gemma": ("gemma", {**COMMON, "num_key_value_heads": 4, "head_dim": 6}),
    "gemma2-grouped": ("gemma2", {**GROUPED, "head_dim": 8}),
    "gemma3-grouped": ("gemma3_text", {**GROUPED, "head_dim": 8}),
    "phi": ("phi", {**COMMON, "num_key_value_heads": 4}),
    "phi-grouped": ("phi", GROUPED),
    "smollm3-grouped": ("smollm3", {**GROUPED, "pad_token_id": 0}),
    "mixtral-grouped": ("mixtral", {**GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1}),
}
WIDE_NORMS = ("olmo2", "olmoe")
BIASED = ("gpt_neox", "gpt2", "qwen2", "phi")
LAYER, HEAD = 1, 2
IDS = torch.arange(16).view(2, 8)


@pytest.fixture(params=list(CASES))
def model(request):
    kind, config = CASES[request.param]
    built = build_model(kind, config=config, init_std=0.3).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name.endswith("bias"):  # zero at the start
                parameter.normal_(std=0.3)
    return built


def wide_norms(model):
    return model.config.model_type in WIDE_NORMS


def biased(model):
    return model.config.model_type in BIASED or getattr(model.config, "attention_bias", False)


def grouped(model):
    return getattr(model.config, "num_key_value_heads", 4) < 4


def heads_outputs(model, layer):
    """What each head gives to the output projection, ``[head, ...]``."""
    caught = []
    handle = output_projection(model, layer).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        logits = model(input_ids=IDS, use_cache=False).logits
    handle.remove()
    return caught[0].unflatten(-1, (4, -1)).movedim(-2, 0), logits


def change(model, masks, to=None):
    for name, parameter in model.named_parameters():
        if name in masks:
            with torch.no_grad():
                parameter[masks[name]] = torch.randn(int(masks[name].sum())) if to is None else to


def test_a_head_whose_entries_are_zero_contributes_nothing(model):
    with head_ablated(model, LAYER, HEAD):
        _, expected = heads_outputs(model, LAYER)
    masks = head_mask(model, LAYER, HEAD)
    if wide_norms(model):  # queries of zero would change the norm of the others'
        masks = {name: mask for name, mask in masks.items() if "o_proj" in name or "v_proj" in name}
        assert len(masks) == 1 + (not grouped(model))
    change(model, masks, to=0.0)
    torch.testing.assert_close(heads_outputs(model, LAYER)[1], expected, atol=1e-5, rtol=1e-5)


def test_a_change_of_the_head_leaves_every_other_head_as_it_is(model):
    (before, logits), patterns = heads_outputs(model, LAYER), look(model, IDS).attention
    change(model, head_mask(model, LAYER, HEAD))
    (after, others), changed = heads_outputs(model, LAYER), look(model, IDS).attention
    rest = [head for head in range(4) if head != HEAD]
    if wide_norms(model):  # one norm over the queries of all heads: there the others feel it
        assert not torch.allclose(changed[LAYER, :, rest], patterns[LAYER, :, rest], atol=1e-6)
        patterns[LAYER, :, rest], before[rest] = changed[LAYER, :, rest], after[rest]
    torch.testing.assert_close(after[rest], before[rest])
    torch.testing.assert_close(changed[LAYER, :, rest], patterns[LAYER, :, rest])
    torch.testing.assert_close(changed[:LAYER], patterns[:LAYER])
    assert not torch.allclose(changed[LAYER, :, HEAD], patterns[LAYER, :, HEAD], atol=1e-3)
    assert not torch.allclose(after[HEAD], before[HEAD], atol=1e-3)
    assert not torch.allclose(others, logits, atol=1e-3)


def test_a_head_that_shares_nothing_holds_its_query_key_value_and_output(model):
    size = heads_outputs(model, LAYER)[0].shape[-1]
    extra = size * (biased(model) + wide_norms(model))  # a bias, and a gain, of queries; the same of keys
    held = sum(int(mask.sum()) for mask in head_mask(model, LAYER, HEAD).values())
    if grouped(model):
        assert held == size * 16 * 2 + extra
        held = sum(int(mask.sum()) for mask in key_value_group_mask(model, LAYER, 1).values())
        assert held == size * 16 * 6 + 3 * extra + size * biased(model)
    else:
        assert held == size * 16 * 4 + 2 * extra + size * biased(model)


def test_only_what_the_masks_hold_moves_the_head(model):
    """The independent truth: what the gradient of the head's output reaches, in the parameters of its layer."""
    held = key_value_group_mask(model, LAYER, HEAD // 2 if grouped(model) else HEAD)
    caught = []
    output_projection(model, LAYER).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    model(input_ids=IDS, use_cache=False)
    outputs = caught[0].unflatten(-1, (4, -1))[..., HEAD, :]
    projections = ("c_attn", "query_key_value", "q_proj", "k_proj", "v_proj")
    if wide_norms(model):  # by way of the norm, a head feels the queries and keys of all
        projections = ("v_proj",)
    prefix = next(n for n, item in model.named_modules() if item is layers(model)[LAYER])
    named = {
        n: item for n, item in model.named_parameters() if n.startswith(prefix) and n.split(".")[-2] in projections
    }
    (outputs * torch.randn_like(outputs)).sum().backward()
    for name, parameter in named.items():
        assert not (parameter.grad.abs() > 1e-6)[~held[name]].any(), name
    if not grouped(model):
        weights = [(name, item) for name, item in named.items() if item.dim() == 2]
        assert all((item.grad.abs() > 0)[held[name]].float().mean() > 0.9 for name, item in weights)


def test_heads_are_disjoint_and_groups_are_their_heads_with_keys_and_values(model):
    groups = components(model, "key_value_groups")
    count = 2 if grouped(model) else 4
    assert groups == [f"layer{layer}.group{group}" for layer in range(2) for group in range(count)]
    assert components(model) == [f"layer{layer}.head{head}" for layer in range(2) for head in range(4)]
    total = {}
    for head in range(4):
        for name, mask in head_mask(model, LAYER, head).items():
            assert not (total.get(name, torch.zeros_like(mask)) & mask).any()
            total[name] = total.get(name, torch.zeros_like(mask)) | mask
    for name, mask in total.items():
        assert mask.all(), name
    for group in range(count):
        held = key_value_group_mask(model, LAYER, group)
        for head in range(group * 4 // count, (group + 1) * 4 // count):
            for name, mask in head_mask(model, LAYER, head).items():
                assert held[name][mask].all()
        assert ("k_proj" in "".join(held)) == ("k_proj" in "".join(dict(model.named_parameters())))


def test_attention_and_mlp_are_in_a_layer_and_layers_share_nothing(model):
    whole = component_masks(model, "layer0")
    inside = {**component_masks(model, "layer0.attention"), **component_masks(model, "layer0.mlp")}
    norms = {name for name in whole if name not in inside}
    assert inside.keys() <= whole.keys()
    assert bool(norms) == (model.config.model_type != "olmo")  # whose norms have no weights
    assert all("norm" in name or "ln_" in name for name in norms)
    assert not whole.keys() & component_masks(model, "layer1").keys()
    assert all(mask.all() for mask in whole.values())
    assert components(model, "layers") == ["layer0", "layer1"]
    assert components(model, "mlp") == ["layer0.mlp", "layer1.mlp"]


def test_names_are_those_of_the_module_that_holds_the_model():
    module = CausalLM("gpt_neox", COMMON)
    named = dict(module.named_parameters())
    for name in components(module):
        masks = component_masks(module, name)
        assert all(named[parameter].shape == mask.shape for parameter, mask in masks.items())
    expected = head_mask(module.model, 1, 3)
    found = component_masks(module, "layer1.head3")
    assert found.keys() == {f"model.{name}" for name in expected}
    assert all(torch.equal(found[f"model.{name}"], mask) for name, mask in expected.items())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layer2", "expected 0 to 1"),
        ("layer0.head4", "expected 0 to 3"),
        ("layer0.group7", "expected 0 to 3"),
        ("head0", "expected a name such as"),
        ("layer0.head", "expected a name such as"),
        ("layer0.norm", "expected a name such as"),
        ("layer0.head1 ", "expected a name such as"),
    ],
)
def test_a_component_that_is_not_there_is_refused(name, words):
    model = build_model("gpt_neox", config=COMMON)
    with pytest.raises(InputError, match=words):
        component_masks(model, name)


def test_models_without_known_components_are_refused():
    other = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 8}
    with pytest.raises(InputError, match="'opt'; expected one of gpt_neox"):
        components(build_model("opt", config=other))
    with pytest.raises(InputError, match="holds no Hugging Face causal language model"):
        head_mask(nn.Linear(2, 2), 0, 0)
    with pytest.raises(InputError, match="expected one of \\('heads'"):
        components(build_model("gpt_neox", config=COMMON), "neurons")
