import pytest
import torch

from stagewise.lm.copying import copying_scores, ov_weights
from stagewise.lm.module import build_model

COMMON = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON |= {"intermediate_size": 32, "max_position_embeddings": 8}
CONFIGS = {
    "gpt_neox": COMMON,
    "llama": {**COMMON, "num_key_value_heads": 2},
    "gpt2": {"vocab_size": 24, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 8},
    "olmo": {**COMMON, "num_key_value_heads": 4},
    "olmo2": {**COMMON, "num_key_value_heads": 2},
    "olmoe": {**COMMON, "num_key_value_heads": 2, "num_experts": 2, "num_experts_per_tok": 1},
    "gemma": {**COMMON, "num_key_value_heads": 2, "head_dim": 6},
    "gemma2": {**COMMON, "num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {**COMMON, "num_key_value_heads": 2, "head_dim": 8},
    "phi": {**COMMON, "num_key_value_heads": 2},
    "smollm3": {**COMMON, "num_key_value_heads": 2, "pad_token_id": 0},
    "mixtral": {**COMMON, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1},
}
OUTPUT = {"gpt_neox": "layers.1.attention", "gpt2": "h.1.attn"}
CENTRED = ("gpt_neox", "gpt2", "olmo", "phi")


@pytest.fixture(params=sorted(CONFIGS))
def model(request):
    torch.manual_seed(0)
    return build_model(request.param, config=CONFIGS[request.param], init_std=0.3).eval()


def test_value_and_output_matrices_are_those_the_model_uses(model):
    caught = {}
    attention = model.base_model.get_submodule(OUTPUT.get(model.config.model_type, "layers.1.self_attn"))

    def catch(_, args, kwargs, output):
        caught["in"] = args[0] if args else kwargs["hidden_states"]
        caught["out"] = output[0]

    attention.register_forward_hook(catch, with_kwargs=True)
    with torch.no_grad():
        model(input_ids=torch.arange(24)[:, None])  # one token: each head attends to itself alone; biases start at 0
    value, out = ov_weights(model)[1]
    expected = torch.einsum("hdk,hkw,bw->bd", out, value, caught["in"][:, 0])
    torch.testing.assert_close(caught["out"][:, 0], expected, atol=1e-5, rtol=1e-4)


def test_eigenvalues_in_head_size_are_those_over_tokens(model):
    layers = model.base_model.h if model.config.model_type == "gpt2" else model.base_model.layers
    assert len(layers) == 2
    embedding, unembedding = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if model.config.model_type in CENTRED:
        embedding = embedding - embedding.mean(1, keepdim=True)
        unembedding = unembedding - unembedding.mean(1, keepdim=True)
    for layer, (value, out) in enumerate(ov_weights(model)):
        for head in range(4):
            whole = (unembedding @ out[head] @ value[head] @ embedding.T).detach().double()
            values = torch.linalg.eigvals(whole)
            expected = (values.real.sum() / values.abs().sum()).item()
            assert copying_scores(model)[layer, head].item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("kind", ["olmo2", "gemma2", "gemma3_text", "phi"])
def test_gains_of_norms_are_those_the_model_multiplies_by(kind):
    """The independent truth: the Jacobian of each norm where the vector's size does not change."""
    torch.manual_seed(0)
    model = build_model(kind, config=CONFIGS[kind], init_std=0.3).eval()
    gains = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.uniform_(-0.5, 0.5)
                norm = model.get_submodule(name.removesuffix(".weight"))
                width = parameter.numel()
                signs = torch.ones(width)
                signs[1::2] = -1  # of size 1 and mean 0: both kinds of norm leave it, but for the gain
                shift = norm.bias if getattr(norm, "bias", None) is not None else 0.0
                gains[name] = (norm(signs) - shift) * signs
    read = dict(gains.items())
    for layer, (value, out) in enumerate(ov_weights(model)):
        first = read.get(f"model.layers.{layer}.input_layernorm.weight", torch.ones(16))
        behind = torch.ones(16) if kind == "phi" else read[f"model.layers.{layer}.post_attention_layernorm.weight"]
        last = read["model.final_layernorm.weight" if kind == "phi" else "model.norm.weight"]
        embedding, unembedding = model.get_input_embeddings().weight, model.get_output_embeddings().weight * last
        if kind == "phi":
            embedding = embedding - embedding.mean(1, keepdim=True)
            unembedding = unembedding - unembedding.mean(1, keepdim=True)
        for head in range(4):
            whole = (unembedding * behind) @ out[head] @ value[head] @ (embedding * first).T
            values = torch.linalg.eigvals(whole.detach().double())
            expected = (values.real.sum() / values.abs().sum()).item()
            assert copying_scores(model)[layer, head].item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_copier_scores_one_and_its_opposite_minus_one(sign):
    torch.manual_seed(0)
    model = build_model("llama", config={**COMMON, "num_attention_heads": 1, "num_key_value_heads": 1})
    with torch.no_grad():
        model.lm_head.weight.copy_(model.get_input_embeddings().weight)
        for layer in model.base_model.layers:
            layer.self_attn.v_proj.weight.copy_(torch.eye(16))
            layer.self_attn.o_proj.weight.copy_(sign * torch.eye(16))
    torch.testing.assert_close(copying_scores(model), torch.full((2, 1), sign), atol=1e-4, rtol=0)


def test_an_architecture_of_unknown_layout_has_no_score():
    assert (
        copying_scores(
            build_model(
                "opt",
                config={
                    "vocab_size": 24,
                    "hidden_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "ffn_dim": 16,
                    "word_embed_proj_dim": 16,
                },
            )
        )
        is None
    )


def test_weights_that_are_not_finite_give_no_number_and_end_no_process():
    """LAPACK ends the process at some NaN."""
    it = build_model("gpt_neox", config=COMMON, init_std=0.3)
    with torch.no_grad():
        it.get_input_embeddings().weight[0] = torch.nan
    scores = copying_scores(it)
    assert scores.isnan().all()
    with torch.no_grad():
        it.get_input_embeddings().weight[0] = 0.0
        it.gpt_neox.layers[1].attention.dense.weight[0] = torch.inf
    scores = copying_scores(it)
    assert scores[0].isfinite().all()
    assert scores[1].isnan().all()
