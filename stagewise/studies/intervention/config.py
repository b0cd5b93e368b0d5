"""Settings of the intervention experiment."""

import math
from dataclasses import dataclass, field
from typing import Any

from stagewise.checks.bounds import settle_fields
from stagewise.errors import InputError, require
from stagewise.jobs.sharing import Backend
from stagewise.phases.online import DetectorConfig, Direction
from stagewise.probes.config import ProbeConfig
from stagewise.probes.schedule import LogSpaced, ProbeSchedule
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.studies.intervention.arms import Arm, sweep_name


@dataclass(frozen=True)
class TrainingSettings:
    """Settings for training and measuring each cell.

    Attributes:
        max_steps: optimizer steps, at most; the head should form well before.
        settle_steps: the arm ``none`` ends so many steps after its head has formed, by score and by loss gap. There the
            other arms of the seed are measured, and end, unless their head has still to form.
        gradient_clip_val: norm to which gradients are clipped; None for no clipping.
        measure_every: training steps between measurements of the induction scores.
        num_evaluation: held-out sequences of each kind for the final losses.
        branch_every: arms go on from the checkpoint of the arm ``none`` before their window, which is the same to the
            last bit as training from the start; it keeps one every so many steps. 0 trains every arm from the start.

    Raises:
        InputError: a value out of range.
    """

    max_steps: int = 1600
    settle_steps: int = 200
    gradient_clip_val: float | None = 1.0
    measure_every: int = 10
    num_evaluation: int = 256
    branch_every: int = 50

    def __post_init__(self) -> None:
        settle_fields(self)
        for name in ("max_steps", "settle_steps", "measure_every", "num_evaluation"):
            value = getattr(self, name)
            require(value >= 1, name, value, "an integer >= 1", "see configs/intervention.yaml")
        clip = self.gradient_clip_val
        require(clip is None or clip > 0, "gradient_clip_val", clip, "more than 0, or null", "1.0 is usual")
        require(self.branch_every >= 0, "branch_every", self.branch_every, "an integer >= 0", "50 is usual")
        together = {name: getattr(self, name) for name in ("max_steps", "settle_steps", "branch_every")}
        require(
            all(value % self.measure_every == 0 for value in together.values()),
            "measure_every",
            self.measure_every,
            f"a divisor of {', '.join(f'{name}={value}' for name, value in together.items())}",
            "10 is usual",
        )


@dataclass(frozen=True)
class InfluenceSettings:
    """Settings of the influence callback of the observed run, as under ``influence`` of ``stagewise fit``.

    Attributes:
        schedule: when to probe.
        sgld: the sampler; the seed of the run is added to its own.
        probe: the measurement.
    """

    schedule: ProbeSchedule = ProbeSchedule(log_spaced=LogSpaced(200, 1600, 48))
    sgld: SGLDConfig = SGLDConfig(
        lr=8e-4, nbeta=300.0, localization=2000.0, num_steps_bw_draws=2, engine=EngineName.sequential
    )
    probe: ProbeConfig = ProbeConfig(reference_ratio=1.2, draw_matrices=False)

    def __post_init__(self) -> None:
        settle_fields(self)


@dataclass(frozen=True)
class OnsetSettings:
    """Definition of the onset, see :func:`~stagewise.studies.intervention.timeline.onset_step`.

    Attributes:
        part: of the influence, ``total``, ``within`` or ``between``. The total has the between part in it, which sees
            how far losses fell since the reference probe, and is far less noisy than the within part.
        against: the group whose influence on itself the group's must exceed.
        ratio: factor.

    Raises:
        InputError: another part, or a ratio that is not positive.
    """

    part: str = "total"
    against: str = "first_copy"
    ratio: float = 2.0

    def __post_init__(self) -> None:
        settle_fields(self, prefix="onset.")
        parts = ["total", "within", "between"]
        require(self.part in parts, "onset.part", repr(self.part), f"one of {parts}", "total is usual")
        require(self.ratio > 0, "onset.ratio", self.ratio, "more than 0", "2 is usual")


@dataclass(frozen=True)
class WeightSettings:
    """Weights of samples, and the length of windows.

    Attributes:
        group: of training samples.
        factor: its weight in a window; others keep 1, and the mass of all is preserved.
        mechanisms: ``sampling``, ``loss``, or both. The sweep and the arm ``live`` are run under the first one, the
            other arms under each. Arms under ``loss`` are named ``<arm>_loss``, also where it is the only one.
        length: of the windows, training steps.
        lead: ``far_before`` starts so many steps before the onset.
        onset: what counts as onset, for all arms but ``inside_within``.
        within_onset: what counts as onset for the arm ``inside_within``.

    Raises:
        InputError: a value out of range.
    """

    group: str = "induction"
    factor: float = 4.0
    mechanisms: list[str] = field(default_factory=lambda: ["sampling"])
    length: int = 100
    lead: int = 300
    onset: OnsetSettings = OnsetSettings()
    within_onset: OnsetSettings = OnsetSettings(part="within", against="background", ratio=1.0)

    def __post_init__(self) -> None:
        settle_fields(self)
        known = ["sampling", "loss"]
        good = bool(self.mechanisms) and len(set(self.mechanisms)) == len(self.mechanisms)
        good = good and set(self.mechanisms) <= set(known)
        require(good, "mechanisms", self.mechanisms, f"one or both of {known}", "see configs/intervention.yaml")
        good = math.isfinite(self.factor) and self.factor >= 0 and self.factor != 1
        require(good, "factor", self.factor, "0 or more, finite, and not 1", "4 is usual")
        for name in ("length", "lead"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "an integer >= 1", "see the configuration")


@dataclass(frozen=True)
class LiveSettings:
    """Settings by which the arm ``live`` finds its window while it trains.

    Attributes:
        signal: of the probes, as in ``stagewise detect``.
        detector: the online detector. Its window is as long as those of the other arms, or ends where the signal is
            back on its plateau: ``max_length`` and ``close_fraction`` are set by the arm.
    """

    signal: str = "within/induction~induction"
    detector: DetectorConfig = field(default_factory=lambda: DetectorConfig(direction=Direction.falling))

    def __post_init__(self) -> None:
        settle_fields(self)


@dataclass(frozen=True)
class InterventionConfig:
    """Settings of the intervention experiment.

    Attributes:
        model: ``class_path`` and ``init_args`` of a LightningModule with a Hugging Face causal language model.
        data: the same of a :class:`~stagewise.lm.data.SequenceData`; its ``seed`` is that of the cell.
        seeds: of weights, data and order.
        output: folder for cells, runs, ``results.json``, ``results.parquet``, the report and its figures.
        num_workers: processes that share the cells.
        backend: where they run.
        arms: besides ``none``, which always runs.
        sweep: starts of further windows, training steps: acceleration against window start.
        training: how each cell trains and is measured.
        influence: what the observed runs are probed with.
        weights: which samples get which weight.
        live: how the arm ``live`` finds its window.

    Raises:
        InputError: no seed, one that comes twice or is negative, an arm or start that comes twice, an unknown arm, no
            worker, or a window that does not fit the run.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    output: str = "runs/intervention"
    num_workers: int = 2
    backend: Backend = Backend.loky
    arms: list[str] = field(default_factory=lambda: [str(arm) for arm in Arm])
    sweep: list[int] = field(default_factory=list)
    training: TrainingSettings = TrainingSettings()
    influence: InfluenceSettings = InfluenceSettings()
    weights: WeightSettings = field(default_factory=WeightSettings)
    live: LiveSettings = field(default_factory=LiveSettings)

    def __post_init__(self) -> None:
        settle_fields(self)
        good = len(self.seeds) > 0 and len(set(self.seeds)) == len(self.seeds) and min(self.seeds) >= 0
        require(good, "seeds", self.seeds, "at least one seed >= 0, each once", 'e.g. --seeds "[1,2,3]"')
        require(self.num_workers >= 1, "num_workers", self.num_workers, "1 or more", "the number of cores is usual")
        require(bool(self.output), "output", repr(self.output), "a folder", "e.g. runs/intervention")
        known = [str(arm) for arm in Arm]
        good = set(self.arms) <= set(known) and len(set(self.arms)) == len(self.arms)
        require(good, "arms", self.arms, f"some of {known}, each once", "see configs/intervention.yaml")
        last = self.training.max_steps - self.weights.length
        require(
            last >= 0,
            "weights.length",
            self.weights.length,
            f"at most training.max_steps={self.training.max_steps}",
            "100 of 1,600 is usual",
        )
        good = len(set(self.sweep)) == len(self.sweep) and all(0 <= start <= last for start in self.sweep)
        require(
            good,
            "sweep",
            self.sweep,
            f"starts of windows of {self.weights.length} steps within the run, 0 to {last}, each once",
            "leave those out, or raise training.max_steps",
        )
        for name in ("model", "data"):
            if "class_path" not in getattr(self, name):
                raise InputError(
                    f"got {name} {getattr(self, name)}; expected class_path and init_args; see "
                    "configs/intervention.yaml"
                )

    def cells(self) -> list[tuple[str, str]]:
        """Arm and mechanism of every cell of a seed, ``none`` first; arms with weights of 1 have mechanism ``none``."""
        found = [(str(Arm.none), "none")]
        if Arm.placebo in self.arms:
            found.append((str(Arm.placebo), "none"))
        weighted = [arm for arm in self.arms if arm not in (Arm.none, Arm.placebo)]
        first, *others = self.weights.mechanisms
        found += [(name, first) for name in [*weighted, *(sweep_name(start) for start in self.sweep)]]
        return found + [(arm, other) for other in others for arm in weighted if arm != Arm.live]
