"""Cost and gain of `engine: compiled` beside `engine: sequential`: rows for `engines.py --compiled` and `gpu.py`.

Compiling is timed from an empty cache, in one process, with the C++ compiler's time; a later run on the same machine
finds the code in torch's own cache on disk and pays less.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from harness import Row
from torch import nn

from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.sampling.engines import compiled
from stagewise.sampling.target import Target

ENGINES = (EngineName.sequential, EngineName.compiled)


def empty_cache(folder: Path) -> None:
    """Gives the compiler a cache of its own, and no processes beside this one; before its first use."""
    os.environ |= {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def _cpu() -> float:
    """CPU seconds of this process and of those that it started."""
    return sum(os.times()[:4])


def compiled_rows(
    case: str,
    module: nn.Module,
    target: Target,
    config: SGLDConfig,
    *,
    more: int,
    rounds: int,
    clock: Callable[[], float],
    checks: bool,
) -> Iterator[Row]:
    """Rows of compiling, of a further draw of both engines in the same rounds, and of what pays the compiling back.

    Args:
        case: of the rows.
        module: the model, in eval mode.
        target: loss and data.
        config: the sampler; ``engine`` and ``num_draws`` are replaced.
        more: draws that a long run has more than a short one of two draws.
        rounds: in which each engine makes a run of each length, the first one first in every second round.
        clock: of the device.
        checks: also whether both draw the same, in float32.
    """
    on_cpu = next(module.parameters()).device.type == "cpu"
    samplers = {
        (engine, draws): ChainSampler(module, target, replace(config, engine=engine, num_draws=draws))
        for engine in ENGINES
        for draws in (2, 2 + more)
    }
    chains = config.num_chains
    whole = _cpu if on_cpu else clock
    start = whole()
    samplers[EngineName.compiled, 2].run()
    first = whole() - start
    start = whole()
    samplers[EngineName.compiled, 2].run()
    cost = first - (whole() - start)
    last = {engine: samplers[engine, 2 + more].run() for engine in ENGINES}
    times: dict[tuple[EngineName, int], list[float]] = {key: [] for key in samplers}
    for number in range(rounds):
        for key in list(samplers)[:: 1 if number % 2 == 0 else -1]:
            start = clock()
            samplers[key].run()
            times[key].append(clock() - start)
    plain, made = (
        [(long - short) / more / chains for long, short in zip(times[engine, 2 + more], times[engine, 2], strict=True)]
        for engine in ENGINES
    )
    who = f"stagewise {EngineName.compiled}"
    yield Row(case, who, "compiling", None, 1, cost, "CPU s" if on_cpu else "s", note=f"by {compiled.BACKEND}")
    yield Row.of(case, f"stagewise {EngineName.sequential}", "further draw", plain)
    yield Row.of(case, who, "further draw / sequential", made, floor=plain)
    saved = median(plain) - median(made)
    pays = "" if saved > 0 else "never: a draw takes as long"
    yield Row(case, who, "draws that pay it back", None, rounds, cost / saved if saved > 0 else None, note=pays)
    if checks:
        one, other = (torch.from_numpy(last[engine].loss) for engine in ENGINES)
        difference, spread = float((one - other).abs().max()), float(one.std(dim=1).mean())
        good = difference < 0.02 * spread
        said = f"differ by {difference:.1e}, spread {spread:.1e}"
        yield Row(case, who, "same draws", None, 1, float(good), "check", note=said)
