"""What a probe measures around its chains."""

from dataclasses import dataclass, field

from stagewise.errors import InputError, require
from stagewise.influence.split import Centering
from stagewise.phases.offline import MIN_PROMINENCE
from stagewise.probes.flags import Thresholds


@dataclass(frozen=True)
class ProbeConfig:
    """Settings of the measurement; the sampler has its own.

    Attributes:
        reference_ratio: the reference of a probe at step t is the latest probe at or before t / reference_ratio. 1.1
            to 1.25 separates transitions; 1.5 and more merges them. Space log-spaced probes evenly and a little wider
            than this, so that the distance to the reference stays the same. Where probes lie closer than a sixteenth
            of it (late in a long run with probes every n steps), not all of them are kept as references, see
            :class:`~stagewise.probes.references.References`.
        centering: around which means the within part is taken, see :class:`~stagewise.influence.split.Centering`.
        gradient_dot: also measure the gradient dot product between groups, and TracIn as its sum over the run.
        damped_influence: also measure the damped influence function between groups, for small models: tens of double
            backward passes for each sample and group beyond 1,000 weights.
        chunk_size: samples of the observed set for each forward pass; all at once if None.
        save_trace: keep every draw's losses on disk. If not, token losses are reduced to samples and groups as they
            come, and memory does not grow with tokens.
        draw_matrices: draw influence between samples as images for TensorBoard, .1 s for each of three parts.
        memory_limit_gib: refuse, before training, an observed set whose traces and matrices need more.
        thresholds: limits beyond which a probe is flagged.
        check_curvature: hold the sampler's settings against the curvature of the loss at the first probe, and at a few
            later ones, and warn where they do not suit it. A look costs some 30 Hessian-vector products.
        min_prominence: least prominence of a transition's peak, as a fraction of the largest signal of the run, see
            :func:`~stagewise.phases.offline.find_windows`. Windows are found when the run ends, from all its probes: a
            resumed run may have another value.

    Raises:
        InputError: a value out of range.
    """

    reference_ratio: float = 1.15
    centering: Centering = Centering.chain
    gradient_dot: bool = True
    damped_influence: bool = False
    chunk_size: int | None = None
    save_trace: bool = True
    draw_matrices: bool = True
    memory_limit_gib: float = 4.0
    thresholds: Thresholds = field(default_factory=Thresholds)
    check_curvature: bool = True
    min_prominence: float = MIN_PROMINENCE

    def __post_init__(self) -> None:
        if not self.reference_ratio > 1:
            raise InputError(f"got reference_ratio={self.reference_ratio}; expected more than 1; 1.15 is usual")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise InputError(f"got chunk_size={self.chunk_size}; expected an integer >= 1, or null for all at once")
        if not self.memory_limit_gib > 0:
            raise InputError(f"got memory_limit_gib={self.memory_limit_gib}; expected more than 0")
        require(
            0 < self.min_prominence <= 1,
            "min_prominence",
            self.min_prominence,
            "a fraction in (0, 1]",
            f"{MIN_PROMINENCE} is the default; lower finds smaller peaks",
        )
