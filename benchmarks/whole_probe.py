"""Time of a whole probe over the time of its draws alone.

    python benchmarks/whole_probe.py --json whole_probe.json            # about five CPU minutes
    python benchmarks/whole_probe.py --only demo --device cuda

A probe as in a run: chains (plain drift, no burn-in), heat of minibatches, gradient dot product, TracIn, diagnostics
and influence of eleven random classes of tokens, in typical shares. The draws are timed within the probe, by the passes
over the observed set: each chain from its first record to the last but one. Process CPU time on one thread; on a GPU
wall-clock time. Each round is a probe of the same prober. If ``auto`` chooses the engine, the first probe is reported
separately.

Rows have the median and the range of the rounds, and in the note their mean with its 95 % interval. The larger case is
measured at fewer draws than a probe of the tables has. The work other than draws is measured in the same probes, and
the row "at 4 x 100 draws" is computed from both, since that work does not grow with the draws.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import process_time

import torch
from engines import language_model
from harness import Row, arguments, device_clock, mean_interval, report, single_thread
from torch import Tensor, nn

from stagewise import ProbeConfig, SGLDConfig
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.probes.prober import Prober
from stagewise.sampling.config import Drift, EngineName
from stagewise.sampling.data import ProbeData

SHARES = (0.4, 0.05, 0.2, 0.03, 0.04, 0.1, 0.02, 0.02, 0.1, 0.03, 0.2)
"""Share of all tokens in each class."""


@dataclass(frozen=True)
class Case:
    """A language model, its data and its chains.

    Attributes:
        name: of the row.
        model: creates the model.
        vocab: tokens of the vocabulary.
        length: tokens per row.
        observed: rows whose losses are recorded.
        sampling: rows from which minibatches are drawn.
        config: the sampler.
        told: another number of draws per chain for which the ratio is computed; None for none.
    """

    name: str
    model: Callable[[], nn.Module]
    vocab: int
    length: int
    observed: int
    sampling: int
    config: SGLDConfig
    told: int | None = None


SETTINGS = SGLDConfig(
    lr=1e-5,
    nbeta=30,
    localization=300,
    num_chains=4,
    num_burnin_steps=0,
    num_steps_bw_draws=1,
    drift=Drift.plain,
)
CASES = (
    Case(
        "demo-size, batch 16 x 32, 64 observed, 4 chains x 20 draws",
        lambda: language_model(512, 64, 2, 4),
        512,
        32,
        64,
        256,
        replace(SETTINGS, num_draws=20, batch_size=16),
    ),
    Case(
        "Pythia-14m shape, batch 4 x 64, 8 observed, 4 chains x 25 draws",
        lambda: language_model(50304, 128, 6, 4),
        50304,
        64,
        8,
        64,
        replace(SETTINGS, num_draws=25, batch_size=4, engine=EngineName.sequential),
        told=100,
    ),
)


class Timed:
    """Loss that notes the times at which the observed set was recorded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.records: list[float] = []
        self._clock = clock

    def __call__(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the losses of a causal language model."""
        found = causal_lm_loss(model, batch)
        if not torch.is_grad_enabled():
            self.records.append(self._clock())
        return found

    def draws(self, num_chains: int, num_draws: int) -> float | None:
        """Returns the seconds of all draws of the last probe; None if a graph was replayed instead of this loss."""
        mine = self.records[-num_chains * num_draws :]
        if len(mine) < num_chains * num_draws:
            return None
        chains = [mine[start : start + num_draws] for start in range(0, len(mine), num_draws)]
        # Heat is measured before the last draw.
        return sum(chain[-2] - chain[0] for chain in chains) * num_draws / (num_draws - 2)


def rows_of(case: Case, device: torch.device, rounds: int, num_draws: int) -> Iterator[Row]:
    """Yields the rows of the first probe and of later ones."""
    clock = process_time if device.type == "cpu" else device_clock
    config = replace(case.config, num_draws=num_draws or case.config.num_draws)
    torch.manual_seed(0)
    model = case.model().to(device)
    ids = torch.randint(case.vocab, (case.sampling, case.length), generator=torch.Generator().manual_seed(1)).to(device)
    classes = {
        f"class {number}": torch.rand(case.observed, case.length - 1, generator=torch.Generator().manual_seed(number))
        < share
        for number, share in enumerate(SHARES)
    }
    loss = Timed(clock)
    start = clock()
    prober = Prober(model, loss, ProbeData(ids[: case.observed], ids, classes), sgld=config, config=ProbeConfig())
    seconds, draws = [], []
    chooses = config.engine is EngineName.auto
    for number in range(rounds + int(chooses)):
        loss.records.clear()
        prober.probe(model, number + 1, lr_sum=0.1 * (number + 1))
        seconds.append(clock() - start)
        draws.append(loss.draws(config.num_chains, config.num_draws))
        alone = "" if draws[-1] is None else f", {draws[-1]:.1f} of them draws"
        print(f"{case.name}: probe {number + 1} took {seconds[-1]:.1f} s{alone}", flush=True)
        start = clock()
    engine = f"stagewise {prober.engine}"
    if chooses:
        yield Row(case.name, engine, "first probe, with the choice of the engine", None, 1, seconds.pop(0), "s")
        draws.pop(0)
    yield Row.of(case.name, engine, "a probe", seconds, note=mean_interval(seconds))
    apart = [(whole, found) for whole, found in zip(seconds, draws, strict=True) if found is not None]
    if not apart:
        return
    wholes, found = zip(*apart, strict=True)
    ratios = [whole / alone for whole, alone in apart]
    yield Row.of(case.name, engine, "whole probe / its draws", wholes, floor=found, note=mean_interval(ratios))
    each = [alone / config.num_chains / config.num_draws for alone in found]
    yield Row.of(case.name, engine, "a draw", each, note=mean_interval(each))
    if case.told is not None:
        scaled = [alone * case.told / config.num_draws for alone in found]
        larger = [more + whole - alone for more, (whole, alone) in zip(scaled, apart, strict=True)]
        ratios = [whole / alone for whole, alone in zip(larger, scaled, strict=True)]
        at = f"computed at {config.num_chains} x {case.told} draws / those draws"
        yield Row.of(case.name, engine, at, larger, floor=scaled, note=mean_interval(ratios))


def main() -> None:
    options = arguments(__doc__, rounds=3, device="cpu", only="", draws=0, engine="")
    single_thread()
    warnings.simplefilter("ignore")
    logging.getLogger("stagewise").setLevel(logging.ERROR)
    rows: list[Row] = []
    for case in CASES:
        if options.only in case.name:
            if options.engine:
                case = replace(case, config=replace(case.config, engine=EngineName(options.engine)))
            rows += rows_of(case, torch.device(options.device), options.rounds, options.draws)
    report(rows, options.json)


if __name__ == "__main__":
    main()
