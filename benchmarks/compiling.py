"""Cost and gain of `engine: compiled` over `engine: sequential`: rows for `engines.py --compiled` and `gpu.py`.

Compiling is timed from an empty cache, in one process, including the C++ compiler; a later run on the same machine
finds the code in torch's cache on disk and takes less time.
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
    """Gives the compiler its own cache and no further processes; must be called before its first use."""
    os.environ |= {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def _cpu() -> float:
    """Returns the CPU seconds of this process and its children."""
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
    """Yields rows of compiling, of a further draw of both engines, and of the number of draws that pays it back.

    Args:
        case: name of the case.
        module: the model, in eval mode.
        target: loss and data.
        config: the sampler; ``engine`` and ``num_draws`` are replaced.
        more: draws of a long run in addition to the two of a short one.
        rounds: number of rounds; in each, every engine makes a run of each length, in alternating order.
        clock: of the device.
        checks: also check that both engines draw the same, in float32.
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
        note = f"differ by {difference:.1e}, spread {spread:.1e}"
        yield Row(case, who, "same draws", None, 1, float(good), "check", note=note)
