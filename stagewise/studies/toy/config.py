"""Settings of the toy experiment."""

from dataclasses import dataclass, field
from typing import Annotated

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import (
    Name,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    at_least,
    check_distinct,
    fraction,
)
from stagewise.errors import InputError, require
from stagewise.influence.stored_matrices import SampleMatrices
from stagewise.probes.config import ProbeConfig
from stagewise.probes.schedule import LogSpaced, ProbeSchedule
from stagewise.sampling.config import Drift, EngineName, SGLDConfig
from stagewise.toy.hierarchy import Hierarchy


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of the network and its training by plain gradient descent on full batches.

    Attributes:
        hidden: hidden units. With few units, modes are not independent of each other at the start.
        init_std: standard deviation of the initial weights.
        lr: learning rate.
        num_steps: steps of training.
        aligned_lr: learning rate of a second run, which starts aligned with the modes and balanced: there the closed
            form holds, except for the size of the steps. It trains for the same time, ``num_steps * lr``.

    Raises:
        InputError: a value out of range.
    """

    hidden: PositiveInt = 32
    init_std: Positive = 1e-3
    lr: Positive = 0.02
    num_steps: PositiveInt = 3800
    aligned_lr: Positive = 0.005

    def __post_init__(self) -> None:
        settle_fields(self)


@dataclass(frozen=True)
class InfluenceSettings:
    """Settings of the influence callback, as under ``influence`` of ``stagewise fit``.

    Attributes:
        schedule: of the probes.
        sgld: the sampler; its seed is added to that of the run.
        probe: the measurement.
    """

    schedule: ProbeSchedule = ProbeSchedule(log_spaced=LogSpaced(200, 3800, 60))
    sgld: SGLDConfig = SGLDConfig(
        lr=1.5e-4,
        nbeta=3000.0,
        localization=10000.0,
        num_chains=32,
        num_draws=400,
        num_burnin_steps=5,
        num_steps_bw_draws=1,
        batch_size=64,
        drift=Drift.plain,
        engine=EngineName.batched,
    )
    probe: ProbeConfig = ProbeConfig(
        reference_ratio=1.04,
        min_prominence=0.01,
        draw_matrices=False,
        save_trace=True,
        sample_matrices=SampleMatrices.all,
    )

    def __post_init__(self) -> None:
        settle_fields(self)


@dataclass(frozen=True)
class RetrainingSettings:
    """Settings of retraining and of other computations without chains.

    Attributes:
        horizons: steps for which an item is dropped, from a shared checkpoint.
        horizon: the one used for the reported figures.
        window_lengths: lengths of the windows in which an item's weight is changed, steps.
        window_weights: weights in the windows: 0 drops the item, 2 doubles it.
        num_windows: number of window starts, evenly spaced in log step over the probed part of the run.
        small_change: weight change that approximates the derivative.
        gaussian_every: interval, in probes, at which the local Gaussian is computed.

    Raises:
        InputError: a value out of range.
    """

    horizons: list[PositiveInt] = field(default_factory=lambda: [20, 50, 100, 200])
    horizon: int = 50
    window_lengths: list[PositiveInt] = field(default_factory=lambda: [100, 200, 400])
    window_weights: list[NonNegative] = field(default_factory=lambda: [0.0, 2.0])
    num_windows: Annotated[int, at_least(2)] = 16
    small_change: Annotated[float, fraction("0.01 is usual")] = 0.01
    gaussian_every: PositiveInt = 3

    def __post_init__(self) -> None:
        settle_fields(self)
        require(
            self.horizon in self.horizons, "horizon", self.horizon, f"one of horizons={self.horizons}", "add it to them"
        )
        for name in ("horizons", "window_lengths"):
            given = getattr(self, name)
            require(
                len(given) > 0 and given == sorted(set(given)),
                name,
                given,
                "increasing numbers of steps, each 1 or more",
                "see configs/toy.yaml",
            )
        require(
            len(self.window_weights) > 0 and 1 not in self.window_weights,
            "window_weights",
            self.window_weights,
            "weights of 0 or more, none of them 1",
            "0 drops an item, 2 doubles it",
        )


@dataclass(frozen=True)
class ToyConfig:
    """Settings of the toy experiment.

    Attributes:
        seeds: one run each; they determine the initial weights and the noise of the chains.
        output: folder for the runs, ``validation.json``, the report and its figures.
        num_workers: processes that share the work.
        hierarchy: items and properties.
        network: the network and its training.
        influence: settings of the callback.
        retraining: settings of computations without chains.

    Raises:
        InputError: no seed, a repeated or negative one, no worker, too few chains or draws that are not kept, or probes
            and windows that do not fit the run.
    """

    seeds: list[NonNegativeInt] = field(default_factory=lambda: [11, 12, 13, 14, 15])
    output: Name = "runs/toy"
    num_workers: Annotated[int, at_least(1, "the number of cores is usual")] = 2
    hierarchy: Hierarchy = field(default_factory=Hierarchy)
    network: NetworkSettings = NetworkSettings()
    influence: InfluenceSettings = InfluenceSettings()
    retraining: RetrainingSettings = RetrainingSettings()

    def __post_init__(self) -> None:
        settle_fields(self)
        check_distinct("seeds", self.seeds, 'e.g. --seeds "[11,12,13]"', expected="at least one seed >= 0, each once")
        sgld = self.influence.sgld
        sgld.require_resolved()
        require(sgld.num_chains >= 3, "num_chains", sgld.num_chains, "3 or more, for errors over chains", "32 is usual")
        # Every minibatch is the whole set: all drifts but the tilted one are then the plain gradient.
        drift = Drift.plain if sgld.drift is not Drift.tilted else sgld.drift
        found = {"drift": drift, "weight_decay": sgld.weight_decay, "parameters": sgld.parameters}
        for name, usable in (("drift", "plain"), ("weight_decay", 0.0), ("parameters", None)):
            value = found[name]
            require(
                value == usable,
                f"influence.sgld.{name}",
                value,
                f"{usable}: the local Gaussian is that of the plain loss and all weights",
                "leave it out",
            )
        require(
            self.influence.probe.gradient_dot,
            "influence.probe.gradient_dot",
            self.influence.probe.gradient_dot,
            "true: it is the baseline of every comparison",
            "leave it out",
        )
        items = len(self.hierarchy.items)
        require(
            sgld.batch_size >= items,
            "batch_size",
            sgld.batch_size,
            f"all {items} items: the other methods know no minibatches",
            f"set influence.sgld.batch_size to {items}",
        )
        require(
            self.influence.probe.save_trace,
            "save_trace",
            self.influence.probe.save_trace,
            "true, since influence is read from the draws",
            "set influence.probe.save_trace to true",
        )
        require(
            self.influence.probe.sample_matrices is SampleMatrices.all,
            "sample_matrices",
            self.influence.probe.sample_matrices,
            "all, since every part is compared",
            "set influence.probe.sample_matrices to all",
        )
        first, last = self.probed_steps[0], self.probed_steps[-1]
        if last > self.network.num_steps:
            raise InputError(
                f"got probes up to step {last} in a run of {self.network.num_steps} steps; expected them within the "
                "run; lower influence.schedule.log_spaced.last or raise network.num_steps"
            )
        longest = max(self.retraining.window_lengths)
        if first + longest >= last:
            raise InputError(
                f"got windows of {longest} steps between the probes at {first} and {last}; expected shorter windows; "
                "lower retraining.window_lengths"
            )

    @property
    def probed_steps(self) -> list[int]:
        """Training steps of the probes.

        Raises:
            InputError: the schedule does not list its steps from 1 on, or sets a budget.
        """
        steps = self.influence.schedule.listed_steps
        if steps is None or steps[0] < 1 or len(steps) < 4 or self.influence.schedule.max_overhead is not None:
            raise InputError(
                "got influence.schedule without 4 listed steps from 1 on, or with max_overhead; expected log_spaced or "
                "at_steps alone, since the other methods are read at the same steps"
            )
        return steps
