"""Small causal language models of many classes of transformers, with weights that make every input matter."""

import torch
import transformers

VOCAB = 40
SIZE = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
GPT2 = {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2}
BART = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "encoder_ffn_dim": 24,
    "max_position_embeddings": 32,
}
SETTINGS = {
    "GPT2LMHeadModel": GPT2,
    "GPTNeoForCausalLM": {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "GPTNeoXForCausalLM": SIZE,
    "LlamaForCausalLM": SIZE,
    "Qwen2ForCausalLM": SIZE | {"num_key_value_heads": 1},
    "Gemma2ForCausalLM": SIZE | {"num_key_value_heads": 1, "head_dim": 8},
    "OPTForCausalLM": {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 24,
    },
    "BloomForCausalLM": {"vocab_size": VOCAB, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "FalconForCausalLM": {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "OpenAIGPTLMHeadModel": GPT2,
    "MambaForCausalLM": {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "MixtralForCausalLM": SIZE | {"num_key_value_heads": 1, "num_local_experts": 2},
    "BertLMHeadModel": SIZE | {"is_decoder": True},
    "RobertaForCausalLM": SIZE | {"is_decoder": True},
    "BartForCausalLM": BART,
    "MBartForCausalLM": BART,
    "XLNetLMHeadModel": {"vocab_size": VOCAB, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
}


def build(name: str, **changed):
    """A model in eval mode, its weights far enough from zero that attention is not uniform."""
    cls = getattr(transformers, name)
    config = cls.config_class(**{"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, **SETTINGS[name], **changed})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cls(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def tiny_gpt2():
    """A GPT-2 of one layer over 11 tokens, in eval mode."""
    config = transformers.GPT2Config(vocab_size=11, n_embd=16, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(config).eval()
