"""Cost of classes, positions and tokens, relative to the chains that measure them.

    python benchmarks/classes.py --json classes.json

64 sequences of 512 tokens, 12 classes, 8 bins of positions, all pairs of tokens of one sequence; 4 chains x 100 draws,
no trace; a 2-layer GPT-NeoX of width 64. The unit is the cost of a draw of one chain in plain torch: the forward and
backward pass of a minibatch of 16 sequences and one forward pass of the observed set, timed on a few draws. Work per
draw, and once per probe, is timed separately and compared with 400 units. Process CPU time on one thread.

Memory is the growth of the process's high-water mark while 400 draws of random losses are reduced and measured, before
a model exists: memory of these products in addition to that of the chains.
"""

import resource
import sys
from functools import partial
from statistics import median

import numpy as np
import torch
from harness import Row, arguments, compare, report, single_thread
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stagewise.batches import chunks
from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws, Reducer
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.token_bif_sums import TokenSums
from stagewise.losses.contract import causal_lm_loss, evaluate
from stagewise.probes.memory import ProbeSize, memory_needed

SAMPLES, LENGTH, CHAINS, DRAWS, CLASSES, BINS, BATCH = 64, 512, 4, 100, 12, 8, 16
TOKENS = LENGTH - 1
CASE = f"{SAMPLES} x {TOKENS} token losses, {CHAINS} chains x {DRAWS} draws"


def high_water() -> float:
    """Returns the largest resident size of this process so far, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def draws_of(losses: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Returns the losses of one draw, with small random changes."""
    return losses + 0.1 * torch.randn(losses.shape, generator=generator)


def reduced(positions: Positions, tokens: TokenSums, losses: torch.Tensor, seed: int) -> GroupDraws:
    """Returns reduced draws of chains, from random losses."""
    generator = torch.Generator().manual_seed(seed)
    reduce = Reducer(positions.joint)
    rows = np.empty((CHAINS, DRAWS, 1 + len(positions.joint), SAMPLES))
    for chain, draw in np.ndindex(CHAINS, DRAWS):
        values = draws_of(losses, generator)
        tokens(chain, values)
        rows[chain, draw] = reduce(values).numpy()
    return GroupDraws.from_reduced(seed, tuple(range(CHAINS)), rows)


def unit(model: GPTNeoXForCausalLM, ids: torch.Tensor) -> None:
    """Computes one draw of one chain in plain torch."""
    parameters = list(model.parameters())
    torch.autograd.grad(evaluate(causal_lm_loss, model, ids[:BATCH]).mean(), parameters)
    with torch.no_grad():
        for chunk in chunks(ids, BATCH):
            evaluate(causal_lm_loss, model, chunk)


def main() -> None:
    options = arguments(__doc__, rounds=3)
    single_thread()
    torch.manual_seed(0)
    losses = 5 * torch.rand(SAMPLES, TOKENS)
    class_of = torch.randint(CLASSES, (SAMPLES, TOKENS)).numpy()
    groups = Groups({f"class {row}": class_of == row for row in range(CLASSES)}, np.ones_like(class_of, dtype=bool))
    positions = Positions(groups, np.ones_like(class_of, dtype=bool), BINS)
    reference = reduced(positions, TokenSums([0]), losses, 1)

    before = high_water()
    tokens = TokenSums([0])
    features = reduced(positions, tokens, losses, 2)
    bif(features, reference, groups, positions=positions)
    tokens.influence()
    extra = high_water() - before

    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=512,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=LENGTH,
            use_cache=False,
        )
    ).eval()
    ids = torch.randint(512, (SAMPLES, LENGTH))
    reduce, running = Reducer(positions.joint), TokenSums([0])
    many = 16  # draws per product

    def take_in() -> None:
        for _ in range(many):
            running(0, losses)

    times = compare(
        {
            "floor": partial(unit, model, ids),
            "reduction": partial(reduce, losses),
            "tokens": take_in,
            "influence": partial(bif, features, reference, groups, positions=positions),
            "token influence": tokens.influence,
        },
        options.rounds,
    )
    per_draw = {
        "classes and positions, reduction": times["reduction"],
        "tokens of one sequence, sums": [seconds / many for seconds in times["tokens"]],
    }
    per_probe = {
        "samples, classes and positions, influence with errors": times["influence"],
        "tokens of one sequence, influence with errors": times["token influence"],
    }
    shares = per_draw | {name: [seconds / (CHAINS * DRAWS) for seconds in found] for name, found in per_probe.items()}
    rows = [Row.of(CASE, name, "share of a draw", found, floor=times["floor"]) for name, found in shares.items()]
    together = [sum(found) for found in zip(*shares.values(), strict=True)]
    rows.append(Row.of(CASE, "all of these", "share of a draw", together, floor=times["floor"], note="aim: .1"))
    floor = times["floor"]
    rows.append(Row(CASE, "floor", "a draw of one chain", None, len(floor), median(floor), "s", min(floor), max(floor)))
    stated = memory_needed(
        ProbeSize(
            num_samples=SAMPLES,
            num_tokens=TOKENS,
            num_chains=CHAINS,
            num_draws=DRAWS,
            num_groups=CLASSES,
            num_positions=BINS,
            num_token_samples=1,
            save_trace=False,
        )
    )
    rows.append(Row(CASE, "all of these", "memory beyond the chains", None, 1, extra, "GiB", note="aim: 1"))
    note = "with the references of a whole run"
    rows.append(Row(CASE, "all of these", "memory stated before", None, 1, sum(stated.values()), "GiB", note=note))
    report(rows, options.json)


if __name__ == "__main__":
    main()
