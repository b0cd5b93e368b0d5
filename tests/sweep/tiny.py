"""A sweep in small: models of width 16, a tokenizer of 300 tokens, checkpoints as save_pretrained writes them."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from stagewise.jobs.sharing import Progress
from stagewise.probes.config import ProbeConfig
from stagewise.sweep.config import CircuitSettings, SweepConfig, TextSettings
from stagewise.sweep.results import write_results
from stagewise.sweep.study import Sweep, prepare_sweep, run_cells
from tests.short_chains import SHORT

VOCAB = 320
SIZE = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": SIZE,
    "gpt2": {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "llama": SIZE | {"num_key_value_heads": 1},
    "qwen2": SIZE | {"num_key_value_heads": 1},
    "gemma": SIZE | {"num_key_value_heads": 1, "head_dim": 8},
}
OTHERS: dict[str, dict[str, Any]] = {
    "olmo": SIZE,
    "olmo2": SIZE | {"num_key_value_heads": 1},
    "gemma3_text": SIZE | {"num_key_value_heads": 1, "head_dim": 8},
    "phi": SIZE,
    "smollm3": SIZE | {"num_key_value_heads": 1, "pad_token_id": 0},
    "mixtral": SIZE | {"num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1},
}
SGLD = replace(SHORT, lr=1e-4, localization=100.0, num_chains=2, num_draws=3)


@cache
def text() -> str:
    """Lines of words and brackets that repeat themselves."""
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    pick = torch.randint(len(words), (240, 6), generator=torch.Generator().manual_seed(3)).tolist()
    return "\n".join(f"{words[a]} ({words[b]}, {words[c]}) {words[a]} [{d}] {words[e]}." for a, b, c, d, e, _ in pick)


@cache
def tokenizer(begins: bool = False):
    """Byte-level BPE of the text; ``begins`` has it put a token before each text, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([text()], trainer)
    if begins:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", bos_token="<s>")


def model(family: str = "gpt_neox", seed: int = 0, **changed: Any):
    """A random causal language model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(family, **{**(FAMILIES | OTHERS)[family], **changed})
        )


def save_checkpoints(folder: Path, steps=(1, 2, 4), family: str = "gpt_neox", begins: bool = False) -> Path:
    """Subfolders ``step<k>`` of different weights, the tokenizer beside them."""
    for step in steps:
        model(family, seed=step).save_pretrained(folder / f"step{step}")
    tokenizer(begins).save_pretrained(folder)
    return folder


def write_corpus(folder: Path) -> Path:
    path = folder / "corpus.txt"
    path.write_text(text())
    return path


def tiny_config(folder: Path, checkpoints: Path | str, **changed: Any) -> SweepConfig:
    given: dict[str, Any] = {
        "checkpoints": str(checkpoints),
        "corpus": str(write_corpus(folder)),
        "output": str(folder / "out"),
        "data": TextSettings(context=16, num_observed=4, num_sampling=8),
        "sgld": SGLD,
        "probe": ProbeConfig(chunk_size=3, save_trace=False),
        "circuits": CircuitSettings(num_sequences=2, segment_length=4, copies=3),
        "device": "cpu",
    }
    return SweepConfig(**{**given, **changed})


def swept(config: SweepConfig, progress: Progress = lambda _: None) -> Sweep:
    """All of the command but its parser."""
    sweep = prepare_sweep(config)
    run_cells(sweep, progress)
    write_results(sweep)
    return sweep
