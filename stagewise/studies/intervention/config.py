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
        max_steps: optimizer steps, at most; the head should form well before.
        settle_steps: the arm ``none`` ends so many steps after its head has formed, by score and by loss gap. There the
            other arms of the seed are measured, and end, unless their head has still to form.
        gradient_clip_val: norm to which gradients are clipped; None for no clipping.
        measure_every: training steps between measurements of the induction scores.
        num_evaluation: held-out sequences of each kind for the final losses.
        branch_every: arms go on from the checkpoint of the arm ``none`` before their window, which is the same to the
            last bit as training from the start; it keeps one every so many steps. 0 trains every arm from the start.
        score_threshold: prefix-matching score of the best head above which it counts as formed; .5 where half of the
            data are made for it, less on text.
        gap_threshold: nats by which the loss on a second copy of random tokens lies below that on the first, for the
            behaviour to count as formed.
        when_exhausted: ``refuse``: no sample may come twice, in any cell. ``repeat``: training may have several epochs,
            and where a window has used up the samples of the group, they come again in the same epoch.

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
        schedule: when to probe.
        sgld: the sampler; the seed of the run is added to its own.
        probe: the measurement.
        enabled: False leaves the probes out, and saves most of the time; the onset is then that of the heads' score.
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
        part: of the influence, ``total``, ``within`` or ``between``. The total has the between part in it, which sees
            how far losses fell since the reference probe, and is far less noisy than the within part.
        against: the group whose influence on itself the group's must exceed.
        ratio: factor.
        level: of the score, between 0 and 1.

    Raises:
        InputError: another part, a ratio that is not positive, or a level that no head passes.
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
        factor: its weight in a window; others keep 1, and the mass of all is preserved.
        mechanisms: ``sampling``, ``loss``, or both. The sweep and the arm ``live`` are run under the first one, the
            other arms under each. Arms under ``loss`` are named ``<arm>_loss``, also where it is the only one.
        length: of the windows, training steps.
        lead: ``far_before`` starts so many steps before the onset.
        onset: what counts as onset, for all arms but ``inside_within``.
        within_onset: what counts as onset for the arm ``inside_within``, by its influence.
        observed: group of the observed sequences whose influence counts, and whose loss is measured without the best
            head; that of the name of ``group`` if None.
        background: group of the observed sequences whose loss at the end is what an arm costs; not told where there is
            no such group.

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
        """Name of the observed group that stands for the weighted one."""
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
        """Refuses windows that only the influence places, where nothing probes it."""
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
        """Arm and mechanism of every cell of a seed, ``none`` first; arms with weights of 1 have mechanism ``none``."""
        found = [(str(Arm.none), "none")]
        if Arm.placebo in self.arms:
            found.append((str(Arm.placebo), "none"))
        weighted = [arm for arm in self.arms if arm not in (Arm.none, Arm.placebo)]
        first, *others = self.weights.mechanisms
        found += [(name, first) for name in [*weighted, *(sweep_name(start) for start in self.sweep)]]
        return found + [(arm, other) for other in others for arm in weighted if arm != Arm.live]
