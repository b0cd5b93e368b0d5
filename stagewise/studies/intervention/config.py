"""Settings of the intervention experiment."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import Name, NonNegativeInt, PositiveInt, at_least, check_distinct, more_than, within
from stagewise.errors import InputError, require
from stagewise.jobs.sharing import Backend
from stagewise.phases.online_detector import DetectorConfig, Direction
from stagewise.probes.config import ProbeConfig
from stagewise.probes.schedule import LogSpaced, ProbeSchedule
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.studies.intervention.arms import INFLUENCED, Arm, sweep_name
from stagewise.studies.intervention.outcomes import GAP_THRESHOLD, SCORE_THRESHOLD


@dataclass(frozen=True)
class TrainingSettings:
    """Settings for training and measuring each cell.

    Attributes:
        max_steps: limit on optimizer steps; the head should form well before.
        settle_steps: steps from the formation of the head of the arm ``none``, by score and by loss gap, to the end of
            its run. The other arms of the seed are measured at that step and end, unless their head has not formed yet.
        gradient_clip_val: norm to which gradients are clipped; None for no clipping.
        measure_every: training steps between measurements of the induction scores.
        num_evaluation: held-out sequences of each kind for the final losses.
        branch_every: training steps between checkpoints of the arm ``none``. Other arms continue from the last one
            before their window, which equals training from the start to the last bit. 0 trains every arm from the
            start.
        score_threshold: prefix-matching score of the best head above which it counts as formed; 0.5 if half of the data
            are made for it, less on text.
        gap_threshold: nats by which the loss on a second copy of random tokens must be below that on the first for the
            behaviour to count as formed.
        when_exhausted: ``refuse``: no cell may use a sample twice. ``repeat``: training may have several epochs, and
            samples of the group are used again within an epoch once a window has used them up.

    Raises:
        InputError: a value out of range.
    """

    max_steps: PositiveInt = 1600
    settle_steps: PositiveInt = 200
    gradient_clip_val: Annotated[float, more_than(0, "1.0 is usual")] | None = 1.0
    measure_every: PositiveInt = 10
    num_evaluation: PositiveInt = 256
    branch_every: NonNegativeInt = 50
    score_threshold: Annotated[float, within(0, 1, "0.5 is usual", with_low=False, with_high=False)] = SCORE_THRESHOLD
    gap_threshold: Annotated[float, more_than(0, "1.5 is usual")] = GAP_THRESHOLD
    when_exhausted: Literal["refuse", "repeat"] = "refuse"

    def __post_init__(self) -> None:
        settle_fields(self)
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
        schedule: of the probes.
        sgld: the sampler; the seed of the run is added to its own.
        probe: the measurement.
        enabled: False disables the probes, which saves most of the time; the onset must then be that of the heads'
            score (``weights.onset.by: score``).
    """

    schedule: ProbeSchedule = ProbeSchedule(log_spaced=LogSpaced(200, 1600, 48))
    sgld: SGLDConfig = SGLDConfig(
        lr=8e-4, nbeta=300.0, localization=2000.0, num_steps_bw_draws=2, engine=EngineName.sequential
    )
    probe: ProbeConfig = ProbeConfig(reference_ratio=1.2, draw_matrices=False)
    enabled: bool = True

    def __post_init__(self) -> None:
        settle_fields(self)


@dataclass(frozen=True)
class OnsetSettings:
    """Definition of the onset.

    Attributes:
        by: ``influence``, see :func:`~stagewise.studies.intervention.timeline.onset_step`, or ``score``: the first
            measurement of the arm ``none`` at which the best head's prefix-matching score is above ``level``. The other
            settings are those of the influence.
        part: of the influence, ``total``, ``within`` or ``between``. The total includes the between part, which
            reflects the fall of losses since the reference probe and is far less noisy than the within part.
        against: group whose influence on itself the group's must exceed.
        ratio: factor.
        level: of the score, between 0 and 1.

    Raises:
        InputError: another part, a ratio that is not positive, or a level outside of 0 to 1.
    """

    part: Literal["total", "within", "between"] = "total"
    against: str = "first_copy"
    ratio: Annotated[float, more_than(0, "2 is usual")] = 2.0
    by: Literal["influence", "score"] = "influence"
    level: Annotated[float, within(0, 1, "0.1 is usual", with_low=False, with_high=False)] = 0.1

    def __post_init__(self) -> None:
        settle_fields(self, prefix="onset.")


@dataclass(frozen=True)
class WeightSettings:
    """Weights of samples, and the length of windows.

    Attributes:
        group: of training samples.
        factor: its weight in a window; others keep 1, and the total mass is preserved.
        mechanisms: ``sampling``, ``loss``, or both. The sweep and the arm ``live`` use the first one, the other arms
            each. Arms under ``loss`` are named ``<arm>_loss``, even if it is the only one.
        length: of the windows, training steps.
        lead: training steps by which ``far_before`` starts before the onset.
        onset: definition of the onset for all arms except ``inside_within``.
        within_onset: definition of the onset for the arm ``inside_within``, by influence.
        observed: group of the observed sequences whose influence counts, and whose loss is measured without the best
            head; the one with the name of ``group`` if None.
        background: group of the observed sequences whose loss at the end is the cost of an arm; no cost is reported
            without such a group.

    Raises:
        InputError: a value out of range.
    """

    group: str = "induction"
    factor: Annotated[float, at_least(0, "4 is usual")] = 4.0
    mechanisms: list[str] = field(default_factory=lambda: ["sampling"])
    length: PositiveInt = 100
    lead: PositiveInt = 300
    onset: OnsetSettings = OnsetSettings()
    within_onset: OnsetSettings = OnsetSettings(part="within", against="background", ratio=1.0)
    observed: str | None = None
    background: str = "background"

    @property
    def observed_group(self) -> str:
        """Name of the observed group that represents the weighted one."""
        return self.group if self.observed is None else self.observed

    def __post_init__(self) -> None:
        settle_fields(self)
        by = self.within_onset.by
        require(by == "influence", "within_onset.by", by, "influence", "leave it out")
        known = ["sampling", "loss"]
        good = bool(self.mechanisms) and len(set(self.mechanisms)) == len(self.mechanisms)
        good = good and set(self.mechanisms) <= set(known)
        require(good, "mechanisms", self.mechanisms, f"one or both of {known}", "see configs/intervention.yaml")
        require(self.factor != 1, "factor", self.factor, "0 or more, and not 1", "4 is usual")


@dataclass(frozen=True)
class LiveSettings:
    """Settings of the arm ``live``, which finds its window during training.

    Attributes:
        signal: of the probes, as in ``stagewise detect``.
        detector: the online detector. Its window is as long as those of the other arms, or ends when the signal is back
            on its plateau: the arm sets ``max_length`` and ``close_fraction``.
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
        backend: backend that runs them.
        arms: arms in addition to ``none``, which always runs.
        sweep: starts of further windows, training steps, for acceleration against window start.
        training: settings of training and measurement.
        influence: settings of the probes of the observed runs.
        weights: weights of samples, and windows.
        live: settings of the arm ``live``.

    Raises:
        InputError: no seed, a repeated or negative one, a repeated arm or start, an unknown arm, no worker, or a window
            that does not fit the run.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    seeds: list[NonNegativeInt] = field(default_factory=lambda: [1, 2, 3])
    output: Name = "runs/intervention"
    num_workers: Annotated[int, at_least(1, "the number of cores is usual")] = 2
    backend: Backend = Backend.loky
    arms: list[str] = field(default_factory=lambda: [str(arm) for arm in Arm])
    sweep: list[int] = field(default_factory=list)
    training: TrainingSettings = TrainingSettings()
    influence: InfluenceSettings = InfluenceSettings()
    weights: WeightSettings = field(default_factory=WeightSettings)
    live: LiveSettings = field(default_factory=LiveSettings)

    def __post_init__(self) -> None:
        settle_fields(self)
        check_distinct("seeds", self.seeds, 'e.g. --seeds "[1,2,3]"', expected="at least one seed >= 0, each once")
        known = [str(arm) for arm in Arm]
        good = set(self.arms) <= set(known) and len(set(self.arms)) == len(self.arms)
        require(good, "arms", self.arms, f"some of {known}, each once", "see configs/intervention.yaml")
        self._check_probes()
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

    def _check_probes(self) -> None:
        """Refuses windows that only influence can place, if there are no probes."""
        if self.influence.enabled:
            return
        by = self.weights.onset.by
        require(by == "score", "weights.onset.by", by, "score, since influence.enabled is false", "set either")
        needy = [arm for arm in self.arms if arm in INFLUENCED]
        require(
            not needy,
            "arms",
            self.arms,
            f"none of {[str(arm) for arm in INFLUENCED]}, since influence.enabled is false",
            f"leave out {needy}",
        )

    def cells(self) -> list[tuple[str, str]]:
        """Returns arm and mechanism of each cell of a seed, ``none`` first; without weights, mechanism ``none``."""
        found = [(str(Arm.none), "none")]
        if Arm.placebo in self.arms:
            found.append((str(Arm.placebo), "none"))
        weighted = [arm for arm in self.arms if arm not in (Arm.none, Arm.placebo)]
        first, *others = self.weights.mechanisms
        found += [(name, first) for name in [*weighted, *(sweep_name(start) for start in self.sweep)]]
        return found + [(arm, other) for other in others for arm in weighted if arm != Arm.live]
