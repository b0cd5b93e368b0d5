"""Cost of a draw, in units of the floor.

The floor is the forward and backward pass of a minibatch and one forward pass of the observed set, per chain and draw,
in plain torch.

    python benchmarks/engines.py --json engines.json

Compares two engines of stagewise, and devinterp 2.0.1 if installed, in one process, each candidate once per round.
*whole call*: everything from the first draw to the trace, after a first call. *marginal draw*: cost of further draws.
Process CPU time on one thread; on a GPU (``--device cuda``) wall-clock time. ``--compiled`` measures the third engine
instead: the cost of compiling, a further draw relative to the sequential engine, and the number of draws that pays it
back.
"""

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from compiling import compiled_rows, empty_cache
from harness import Row, arguments, device_clock, report, single_thread
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stagewise.losses.contract import causal_lm_loss, resolve_loss
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.sampling.target import Target


@dataclass(frozen=True)
class Case:
    """One model with its data: rows of token ids, of which the linear net uses only the first."""

    name: str
    module: nn.Module
    loss_fn: Callable[[Any, Any], Any]
    ids: Tensor
    num_observed: int
    config: SGLDConfig
    more_draws: int
    engines: tuple[EngineName, ...] = (EngineName.sequential, EngineName.batched)


class LinearNet(nn.Module):
    """Linear network of 8 items, 50 hidden units and 36 features."""

    items: Tensor
    features: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 50, bias=False)
        self.second = nn.Linear(50, 36, bias=False)
        self.register_buffer("items", torch.eye(8))
        self.register_buffer("features", (torch.rand(8, 36) > 0.5).float())

    def forward(self, ids: Tensor) -> Tensor:
        """Returns scores ``[sample, 36]`` of items ``[sample]``."""
        return self.second(self.first(self.items[ids]))

    def token_losses(self, ids: Tensor) -> Tensor:
        """Returns losses ``[sample, 1]``, the shape required by devinterp."""
        return (self(ids[:, 0]) - self.features[ids[:, 0]]).square().sum(1, keepdim=True) / 2


def linear_loss(module: LinearNet, ids: Tensor) -> Tensor:
    return module.token_losses(ids)[:, 0]


def language_model(
    vocab_size: int, hidden_size: int, layers: int, heads: int, positions: int = 128
) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden_size,
            max_position_embeddings=positions,
            use_cache=False,
        )
    ).eval()


def cases() -> list[Case]:
    torch.manual_seed(0)
    settings = SGLDConfig(lr=1e-5, nbeta=30, localization=300)
    items = torch.stack([torch.arange(8), torch.zeros(8, dtype=torch.long)], dim=1)

    def tokens(vocab_size: int, rows: int, length: int) -> Tensor:
        return torch.randint(vocab_size, (rows, length))

    return [
        Case(
            "8-50-36 linear net, 4 chains x 50 draws",
            LinearNet(),
            linear_loss,
            items,
            8,
            replace(settings, num_chains=4, num_draws=50, batch_size=8),
            150,
        ),
        Case(
            "2-layer GPT-NeoX d=32, batch 2 x 16, 4 observed, 8 chains x 8 draws",
            language_model(64, 32, 2, 2),
            causal_lm_loss,
            tokens(64, 64, 16),
            4,
            replace(settings, num_chains=8, num_draws=8, batch_size=2),
            24,
        ),
        Case(
            "2-layer GPT-NeoX d=64, batch 16 x 64, 64 observed, 4 chains x 8 draws",
            language_model(512, 64, 2, 4),
            causal_lm_loss,
            tokens(512, 256, 64),
            64,
            replace(settings, num_chains=4, num_draws=8, batch_size=16),
            8,
        ),
        Case(
            "Pythia-14m shape, batch 4 x 64, 8 observed, 1 chain x 4 draws",
            language_model(50304, 128, 6, 4),
            causal_lm_loss,
            tokens(50304, 64, 64),
            8,
            replace(settings, num_chains=1, num_draws=4, batch_size=4),
            4,
            engines=(EngineName.sequential,),
        ),
        Case(
            "Pythia-14m shape, batch 32 x 64, 64 observed, 1 chain x 2 draws",
            language_model(50304, 128, 6, 4),
            causal_lm_loss,
            tokens(50304, 64, 64),
            64,
            replace(settings, num_chains=1, num_draws=2, batch_size=32),
            2,
            engines=(EngineName.sequential,),
        ),
    ]


def plain_losses(model: nn.Module, ids: Tensor) -> Tensor:
    """Computes token losses the usual way, from the logits of all tokens."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")


def floor(case: Case) -> Callable[[], None]:
    """Returns a call of the floor, for one chain and draw."""
    batch, observed = case.ids[: case.config.batch_size], case.ids[: case.num_observed]
    parameters = list(case.module.parameters())

    def losses(ids: Tensor) -> Tensor:
        plain = plain_losses if case.loss_fn is causal_lm_loss else case.loss_fn
        return plain(case.module, ids)

    def run() -> None:
        torch.autograd.grad(losses(batch).mean(), parameters)
        with torch.no_grad():
            losses(observed)

    return run


def ours(case: Case, engine: EngineName, num_draws: int) -> Callable[[], object]:
    sampler = ChainSampler(
        case.module,
        Target(resolve_loss(case.module, case.loss_fn), case.ids[: case.num_observed], case.ids),
        replace(case.config, engine=engine, num_draws=num_draws),
    )
    return sampler.run


def devinterps(case: Case, num_draws: int) -> Callable[[], object] | None:
    """Returns a call of devinterp's sampler on the same work, or None without devinterp."""
    try:
        from datasets import Dataset
        from devinterp.slt.sampling import sample
    except ImportError:
        return None
    logging.disable(logging.WARNING)
    config = case.config
    columns = Dataset.from_dict({"input_ids": case.ids.tolist()}).with_format("torch")
    observed = columns.select(range(case.num_observed))
    own_loss = isinstance(case.module, LinearNet)

    def run() -> None:
        folder = Path(tempfile.mkdtemp())
        with redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sample(
                case.module,
                columns,
                {"seen": (observed, max(1, case.num_observed // config.batch_size))},
                lr=config.lr,
                n_beta=config.nbeta,
                localization=config.localization,
                num_chains=config.num_chains,
                num_draws=num_draws,
                batch_size=config.batch_size,
                num_init_loss_batches=1,
                device=str(case.ids.device),
                output_path=folder / "samples.zarr",
                loss_fn=(lambda module, ids: module.token_losses(ids)) if own_loss else None,
            )
        shutil.rmtree(folder)

    return run


def measure(case: Case, rounds: int, clock: Callable[[], float]) -> list[Row]:
    """Times, in each round, the floor and each candidate with fewer and more draws."""
    short, long = case.config.num_draws, case.config.num_draws + case.more_draws
    candidates = {f"stagewise {engine}": partial(ours, case, engine) for engine in case.engines}
    runs: dict[tuple[str, int], Callable[[], object]] = {
        (name, draws): make(draws) for name, make in candidates.items() for draws in (short, long)
    }
    for draws in (short, long):
        theirs = devinterps(case, draws)
        if theirs is not None:
            runs["devinterp 2.0.1", draws] = theirs
    unit = floor(case)
    for run in runs.values():
        run()
    once = _seconds(unit, 3, clock)
    repeats = max(2, round(0.3 / once))
    found: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
    floors = []
    for _ in range(rounds):
        before = _seconds(unit, repeats, clock)
        for key, run in runs.items():
            found[key].append(_seconds(run, 1, clock))
        # Before and after, since the load of the machine changes.
        floors.append((before + _seconds(unit, repeats, clock)) / 2)
    rows = []
    for name in dict.fromkeys(name for name, _ in runs):
        chains = case.config.num_chains
        whole = [seconds / (chains * short) for seconds in found[name, short]]
        paired = zip(found[name, long], found[name, short], strict=True)
        marginal = [(more - less) / (chains * case.more_draws) for more, less in paired]
        rows.append(Row.of(case.name, name, "whole call", whole, floor=floors))
        rows.append(Row.of(case.name, name, "marginal draw", marginal, floor=floors))
        fixed = [(all_of_it - rest) * short for all_of_it, rest in zip(whole, marginal, strict=True)]
        value = median(fixed)
        rows.append(Row(case.name, name, "fixed cost of a chain", None, rounds, value, "s", min(fixed), max(fixed)))
    return rows


def of_compiled(case: Case, rounds: int, clock: Callable[[], float], folder: Path) -> list[Row]:
    """Compares the compiled engine with the sequential one."""
    empty_cache(folder)
    target = Target(resolve_loss(case.module, case.loss_fn), case.ids[: case.num_observed], case.ids)
    more = max(2, case.more_draws)
    return list(
        compiled_rows(case.name, case.module, target, case.config, more=more, rounds=rounds, clock=clock, checks=True)
    )


def _seconds(run: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(repeats):
        run()
    return (clock() - start) / repeats


def main() -> None:
    options = arguments(__doc__, device="cpu", only="", compiled=False)
    single_thread()
    clock = time.process_time if options.device == "cpu" else device_clock
    rows = []
    for case in cases():
        if options.only in case.name:
            case.module.to(options.device)
            case = replace(case, ids=case.ids.to(options.device))
            if options.compiled:
                with tempfile.TemporaryDirectory() as folder:
                    rows += of_compiled(case, options.rounds, clock, Path(folder))
            else:
                rows += measure(case, options.rounds, clock)
    report(rows, options.json)


if __name__ == "__main__":
    main()
