"""Cost of the gradient dot product between groups, relative to the probe that includes it.

    python benchmarks/baselines.py --json baselines.json

Shapes as in ``configs/pythia-14m.yaml``: a GPT-NeoX of 14 million weights, an observed set of 64 sequences of 256
tokens in chunks of 8, minibatches of 32, 4 chains x 100 draws, eleven classes (here random tokens in typical shares).
The unit is a probe: the cost of a draw of one chain in plain torch (forward and backward pass of a minibatch, forward
pass of the observed set), timed on one draw, times 400.

*folds*: as in a probe. *all pairs*: one fold per sample, with as many backward passes as samples have groups; timed on
``--samples`` of them. Each candidate is called once per round, after a warm-up draw. Process CPU time on one thread; on
a GPU (``--device cuda``) wall-clock time.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from harness import Row, arguments, device_clock, report, single_thread
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stagewise.batches import chunks
from stagewise.influence.baselines.graddot import gradient_dot
from stagewise.influence.groups import Groups
from stagewise.losses.contract import causal_lm_loss, evaluate
from stagewise.probes.config import ProbeConfig
from stagewise.probes.memory import gradient_memory
from stagewise.sampling.target import Target

SAMPLES, LENGTH, CHUNK, BATCH, CHAINS, DRAWS = 64, 256, 8, 32, 4, 100
SHARES = (0.4, 0.05, 0.2, 0.03, 0.04, 0.1, 0.02, 0.02, 0.1, 0.03, 0.2)
"""Share of all tokens in each class."""


def pythia_14m() -> GPTNeoXForCausalLM:
    """Returns a model of the shape of ``EleutherAI/pythia-14m``, with random weights."""
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=50304,
            hidden_size=128,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=2048,
            rotary_pct=0.25,
            use_cache=False,
        )
    ).eval()


def draw(model: GPTNeoXForCausalLM, ids: torch.Tensor, minibatch: torch.Tensor) -> None:
    """Computes one draw of one chain in plain torch."""
    torch.autograd.grad(evaluate(causal_lm_loss, model, minibatch).mean(), list(model.parameters()))
    with torch.no_grad():
        for chunk in chunks(ids, CHUNK):
            evaluate(causal_lm_loss, model, chunk)


def main() -> None:
    options = arguments(__doc__, rounds=1, device="cpu", samples=4, folds="4,8")
    single_thread()
    torch.manual_seed(0)
    model = pythia_14m().to(options.device)
    ids = torch.randint(50304, (SAMPLES, LENGTH)).to(options.device)
    minibatch = torch.randint(50304, (BATCH, LENGTH)).to(options.device)
    generator = np.random.default_rng(0)
    masks = {f"class {row}": generator.random((SAMPLES, LENGTH - 1)) < share for row, share in enumerate(SHARES)}
    groups = Groups(masks, np.ones((SAMPLES, LENGTH - 1), dtype=bool))
    few = Groups({name: mask[: options.samples] for name, mask in masks.items()}, groups.present[: options.samples])
    weights = sum(parameter.numel() for parameter in model.parameters())
    block, gib = gradient_memory(ProbeConfig(), 0.0, num_groups=len(groups), num_weights=weights)

    target = Target(causal_lm_loss, ids, chunk_size=CHUNK)
    few_target = Target(causal_lm_loss, ids[: options.samples])
    runs: dict[str, Callable[[], object]] = {"draw": partial(draw, model, ids, minibatch)}
    for number in map(int, options.folds.split(",")):
        runs[f"{number} folds"] = partial(gradient_dot, model, target, groups, num_folds=number, block_size=block)
    runs["all pairs"] = partial(gradient_dot, model, few_target, few)
    clock = device_clock if options.device == "cuda" else time.process_time
    times: dict[str, list[float]] = {name: [] for name in runs}
    runs["draw"]()
    for _ in range(options.rounds):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
            print(f"{name}: {times[name][-1]:.2f} s", file=sys.stderr, flush=True)
    probe = [seconds * CHAINS * DRAWS for seconds in times.pop("draw")]
    times["all pairs"] = [seconds * SAMPLES / options.samples for seconds in times["all pairs"]]
    case = f"Pythia-14m shape, {SAMPLES} x {LENGTH} tokens, {len(groups)} groups, {CHAINS} chains x {DRAWS} draws"
    rows = [
        Row.of(case, f"gradient dot product, {name}", "share of a probe", found, floor=probe, note="aim: .1")
        for name, found in times.items()
    ]
    rows.append(Row(case, "chains", "a probe", None, len(probe), median(probe), "s", min(probe), max(probe)))
    rows.append(Row(case, "gradient dot product", "memory stated before", None, 1, gib, "GiB"))
    report(rows, options.json)


if __name__ == "__main__":
    main()
