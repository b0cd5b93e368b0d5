"""Settings of a probe, other than those of the sampler."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import NonNegativeInt, Positive, at_least, check_distinct, more_than, within
from stagewise.errors import require
from stagewise.influence.split import Centering
from stagewise.influence.stored_matrices import SampleMatrices
from stagewise.phases.offline import MIN_PROMINENCE
from stagewise.probes.flags import Thresholds
from stagewise.probes.llc_config import LLCConfig

_PROMINENCE = f"{MIN_PROMINENCE} is the default; lower finds smaller peaks"


@dataclass(frozen=True)
class ProbeConfig:
    """Settings of the measurement; the sampler has its own.

    Attributes:
        reference_ratio: the reference of a probe at step t is the latest probe at or before t / reference_ratio. 1.1
            to 1.25 separates transitions; 1.5 and more merges them. Space log-spaced probes evenly and a little wider
            than this, so that the distance to the reference stays the same. If probes are closer than a sixteenth of
            it (late in a long run with probes every n steps), not all of them are kept as references, see
            :class:`~stagewise.probes.references.References`.
        centering: means about which the within part is taken, see :class:`~stagewise.influence.split.Centering`: with
            the pooled one it is unbiased in equilibrium, except for a factor 1 - 1 / effective draws; with that of each
            chain it is too low for short chains.
        gradient_dot: also compute the gradient dot product between groups, and TracIn as its sum over the run.
        gradient_dot_folds: number of folds of the observed set; the mean is over pairs of losses in different folds.
            Fewer if needed to keep a pair for every two groups, see
            :func:`~stagewise.influence.baselines.graddot.gradient_dot`. Null uses all pairs in different samples, with
            one backward pass for each sample and group.
        damped_influence: also compute the damped influence function between groups, for small models: beyond 1,000
            weights tens of double backward passes for each sample and group.
        chunk_size: samples of the observed set for each forward pass; all at once if None.
        save_trace: keep every draw's losses, in memory and on disk (``loss``, ``distance``). If False, token losses are
            reduced to samples and groups at each draw, and memory does not grow with tokens. Influence is the same.
        sample_matrices: stored influence between samples, see
            :class:`~stagewise.influence.stored_matrices.SampleMatrices`: ``within``, that part, rounded; ``all``, in
            full; or ``none``. Derived quantities have full precision. A resumed run may have another value.
        position_bins: also compute the influence of each group on the losses at bins of token positions: number of
            bins, or their edges, see :class:`~stagewise.influence.position_influence.Positions`. None disables it.
        token_samples: also compute the influence between all tokens of these samples, given by position in the
            observed set, with errors over chains, see :class:`~stagewise.influence.token_bif_sums.TokenSums`: memory
            and disk grow with the square of their tokens, not with draws. None leaves it out.
        draw_matrices: draw influence between samples as images for TensorBoard, 0.2 s for three parts; if probes are
            closer than 5 % of the step, not every one is drawn, see
            :func:`~stagewise.reporting.tensorboard.images_due`. Also draw overview and curves of the run: at its end,
            2 to 4 s, and during the run at steps a quarter apart, 1 s.
        memory_limit_gib: limit on the memory of all requested products, checked before training, see
            :func:`~stagewise.probes.memory.memory_needed`.
        thresholds: limits beyond which a probe is flagged.
        check_curvature: check the sampler's settings against the curvature of the loss at the first probe and a few
            later ones, and warn of unsuitable settings. A check costs some 30 Hessian-vector products.
        control_every: period, in probes, of the negative control, starting with the first: the chains are repeated
            without the loss (nbeta 0) with the same noise, and the remaining influence reflects only gradients of the
            loss, see :func:`~stagewise.influence.control.control_influence`. It needs no gradients, only noise and
            forward passes over the observed set, which count as time of the probe: the budget of the schedule predicts
            the cost of a probe from the previous one, with or without control. None disables it.
        min_prominence: minimal prominence of a transition's peak, as a fraction of the largest signal of the run, see
            :func:`~stagewise.phases.offline.find_windows`. Windows are found when the run ends, from all its probes: a
            resumed run may have another value.
        llc: settings of the local learning coefficient; from the draws of influence by default, see
            :class:`~stagewise.probes.llc_config.LLCConfig`.

    Raises:
        InputError: a value out of range.
    """

    reference_ratio: Annotated[float, more_than(1, "1.15 is usual")] = 1.15
    centering: Centering = Centering.pooled
    gradient_dot: bool = True
    gradient_dot_folds: Annotated[int, at_least(2, "4 is the default; null takes all pairs")] | None = 4
    damped_influence: bool = False
    chunk_size: Annotated[int, at_least(1, "null takes all at once")] | None = None
    save_trace: bool = False
    sample_matrices: SampleMatrices = SampleMatrices.within
    position_bins: Annotated[int, at_least(1, "8 is usual")] | list[int] | None = None
    token_samples: list[NonNegativeInt] | None = None
    draw_matrices: bool = True
    memory_limit_gib: Positive = 4.0
    thresholds: Thresholds = field(default_factory=Thresholds)
    check_curvature: bool = True
    control_every: Annotated[int, at_least(1, "5 is usual; null leaves the control out")] | None = None
    min_prominence: Annotated[float, within(0, 1, _PROMINENCE, with_low=False)] = MIN_PROMINENCE
    llc: LLCConfig = field(default_factory=LLCConfig)

    def __post_init__(self) -> None:
        settle_fields(self)
        if isinstance(self.position_bins, list):
            two = len(self.position_bins) >= 2
            require(two, "position_bins", self.position_bins, "two edges or more", "8 bins are usual")
        if self.token_samples is not None:
            words = "positions in the observed set, each once, or null for none"
            check_distinct("token_samples", self.token_samples, "e.g. [0, 1]", expected=words)


def changed_settings(config: ProbeConfig) -> dict[str, Any]:
    """Returns the settings that differ from their defaults, by name; likewise for thresholds and llc.

    Args:
        config: the measurement.
    """
    own, default = asdict(config), asdict(ProbeConfig())
    found: dict[str, Any] = {}
    for name, value in own.items():
        if value == default[name]:
            continue
        nested = isinstance(value, dict)
        found[name] = {key: of for key, of in value.items() if of != default[name][key]} if nested else value
    return found
