import json

import pytest
import torch
import torch.nn.functional as F

from stagewise.errors import InputError
from stagewise.sweep.lens_states import LensConfig, is_lens_state, lens_model
from tests.sweep.lens_reference import gelu_new, logits, random_state

IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5])
PYTHIA = LensConfig(act_fn="gelu", rotary_dim=4, n_ctx=12, parallel_attn_mlp=True)


def found(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS[None]).logits[0]


def close(one, other):
    torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "act"), [("gelu_new", gelu_new), ("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu)]
)
def test_learned_positions_give_a_gpt2_of_the_same_logits(name, act):
    state = random_state()
    model = lens_model(state, LensConfig(act_fn=name, eps=1e-3), "it")
    assert type(model).__name__ == "GPT2LMHeadModel"
    close(found(model), logits(state, IDS, act=act, eps=1e-3))


@pytest.mark.parametrize("rotary_dim", [2, 4, 8])
@pytest.mark.parametrize("parallel", [True, False])
def test_rotary_positions_give_a_gpt_neox_of_the_same_logits(rotary_dim, parallel):
    state = random_state(learned=False)
    config = LensConfig(act_fn="gelu", rotary_dim=rotary_dim, n_ctx=12, parallel_attn_mlp=parallel)
    model = lens_model(state, config, "it")
    assert type(model).__name__ == "GPTNeoXForCausalLM"
    close(found(model), logits(state, IDS, act=F.gelu, rotary_dim=rotary_dim, parallel=parallel))


@pytest.mark.parametrize("learned", [True, False])
def test_folded_norms_are_norms_without_gain(learned):
    state = random_state(learned=learned, norm=False)
    rotary = None if learned else 4
    config = LensConfig(act_fn="gelu", normalization_type="LNPre", rotary_dim=rotary, n_ctx=12)
    close(found(lens_model(state, config, "it")), logits(state, IDS, act=F.gelu, rotary_dim=rotary))
    with pytest.raises(InputError, match=r"with no blocks\.0\.ln1\.w"):
        lens_model(state, LensConfig(act_fn="gelu", rotary_dim=rotary, n_ctx=12), "it")


def from_gpt2(model):
    """TransformerLens's weights of a GPT-2, written down from the two definitions."""
    heads, width = model.config.n_head, model.config.n_embd
    base = model.transformer
    state = {"embed.W_E": base.wte.weight, "pos_embed.W_pos": base.wpe.weight, "unembed.W_U": model.lm_head.weight.T}
    state |= {"ln_final.w": base.ln_f.weight, "ln_final.b": base.ln_f.bias}
    for layer, block in enumerate(base.h):
        start = f"blocks.{layer}"
        for part, weight, bias in zip(
            "QKV", block.attn.c_attn.weight.split(width, 1), block.attn.c_attn.bias.split(width), strict=True
        ):
            state[f"{start}.attn.W_{part}"] = torch.stack(weight.split(width // heads, 1))
            state[f"{start}.attn.b_{part}"] = torch.stack(bias.split(width // heads))
        state[f"{start}.attn.W_O"] = torch.stack(block.attn.c_proj.weight.split(width // heads, 0))
        state[f"{start}.attn.b_O"] = block.attn.c_proj.bias
        for name, norm in (("ln1", block.ln_1), ("ln2", block.ln_2)):
            state |= {f"{start}.{name}.w": norm.weight, f"{start}.{name}.b": norm.bias}
        for name, linear in (("in", block.mlp.c_fc), ("out", block.mlp.c_proj)):
            state |= {f"{start}.mlp.W_{name}": linear.weight, f"{start}.mlp.b_{name}": linear.bias}
    return {name: value.detach().clone() for name, value in state.items()}


def test_a_gpt2_that_goes_there_and_back_is_the_same():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=4, n_positions=12, n_inner=24))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    back = lens_model(from_gpt2(model), LensConfig(), "it")
    assert torch.equal(found(back), found(model))
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


REFUSED = {
    "a bias of the unembedding": (random_state() | {"unembed.b_U": torch.ones(30)}, LensConfig(), "unembed.b_U other"),
    "no mlp": (
        {name: value for name, value in random_state().items() if ".mlp." not in name},
        LensConfig(),
        r"it with no blocks\.0\.mlp\.W_in; expected a plain GPT-2-like",
    ),
    "a gate": (
        random_state() | {"blocks.0.mlp.W_gate": torch.ones(16, 24)},
        LensConfig(),
        r"W_gate, a part that is not",
    ),
    "a lost weight": (without(random_state(), "blocks.1.attn.W_O"), LensConfig(), r"with no blocks\.1\.attn\.W_O"),
    "another shape": (
        random_state() | {"blocks.0.attn.W_Q": torch.ones(16, 16)},
        LensConfig(),
        r"with \(16, 16\) as blocks\.0\.attn\.W_Q",
    ),
    "shapes that differ between layers": (
        random_state() | {"blocks.1.mlp.W_in": torch.ones(16, 25)},
        LensConfig(),
        "with weights of other shapes",
    ),
    "wide heads": (
        random_state() | {f"blocks.0.attn.W_{item}": torch.ones(2, 16, 5) for item in "QKV"},
        LensConfig(),
        "of 2 heads of 5 in a width of 16",
    ),
    "rotary without settings": (random_state(learned=False), LensConfig(), "no rotary_dim and n_ctx; expected them in"),
    "learned and parallel": (random_state(), LensConfig(parallel_attn_mlp=True), "learned positions and parallel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_models_are_refused_by_what_they_have(case):
    state, config, words = REFUSED[case]
    with pytest.raises(InputError, match=words) as caught:
        lens_model(state, config, "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"act_fn": "gelu_pytorch_tanh"}, "act_fn='gelu_pytorch_tanh'; expected one of gelu"),
        ({"normalization_type": "RMS"}, "normalization_type='RMS'; expected LN or LNPre"),
        ({"attn_only": True}, "attn_only=True"),
        ({"rotary_adjacent_pairs": True}, "rotary_adjacent_pairs=True"),
        ({"rotary_dim": "four"}, "rotary_dim='four'"),
        ({"eps": 0}, "eps=0"),
    ],
)
def test_settings_of_other_models_are_refused(tmp_path, content, words):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        LensConfig.read(tmp_path / "config.json")


def test_settings_are_read_by_transformer_lens_names_and_others_passed_over(tmp_path):
    written = {"act_fn": "relu", "n_ctx": 12, "d_head": 8, "rotary_dim": None, "eps": 1e-6, "attn_only": False}
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert LensConfig.read(tmp_path / "config.json") == LensConfig(act_fn="relu", n_ctx=12, eps=1e-6)
    assert LensConfig.read(tmp_path / "none.json") == LensConfig()


def test_other_states_are_no_lens_states():
    assert is_lens_state(random_state())
    assert not is_lens_state({"transformer.wte.weight": torch.ones(1)})
    assert not is_lens_state({})
