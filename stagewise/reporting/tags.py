"""Every TensorBoard tag, once. The x axis is always ``trainer.global_step``."""

from stagewise.influence.split import PARTS

OVERVIEW = "00_overview"
"""Image of the main results of a run; the digit sorts it before all other tags."""

BETWEEN_SHARE = "influence/between_share"
FLIP_FRACTION = "influence/flip_fraction"
Z_MEDIAN = "influence/z_median"

RHAT_MAX = "sampler/rhat_max"
ESS_MIN = "sampler/ess_min"
DRIFT = "sampler/drift"
LOSS_RISE = "sampler/loss_rise"
SECONDS = "sampler/seconds"
OVERHEAD = "sampler/overhead"
CHAINS_DROPPED = "sampler/chains_dropped"
RHAT_GROUPS = "sampler/rhat_groups"
ESS_GROUPS = "sampler/ess_groups"
MCSE_MEAN = "sampler/mcse_mean"
MCSE_MAX = "sampler/mcse_max"
CHAIN_SHARE = "sampler/chain_share"
DRAW_SHARE = "sampler/draw_share"
DISTANCE = "sampler/distance"
GRADIENT_OVER_EPS = "sampler/gradient_over_eps"
MINIBATCH_NOISE = "sampler/minibatch_noise"
FLAGGED = "sampler/flagged"
"""Number of flags of a probe, see :mod:`stagewise.probes.flags`."""
SKIPPED = "sampler/skipped"
"""Number of probes so far that the budget did not allow."""

SIGNAL = "transition/signal"
THRESHOLD = "transition/threshold"
IN_WINDOW = "transition/in_window"

LLC_ALL = "llc/all"
"""Local learning coefficient of the mean of all losses, a pure number; a group named ``all`` has the same tag."""
LLC_LOCALIZED = "sampler/llc_localized_share"
"""Share of the learning coefficient due to the localization, see :mod:`stagewise.influence.llc`."""
LLC_SECONDS = "sampler/llc_seconds"
"""Time of the learning coefficient's own chains, seconds."""
LLC_CURVES = "01_curves/learning_coefficient"
"""Image of the learning coefficients over a run, with intervals."""
GRADIENT_CURVES = "01_curves/influence_within_and_gradients"
"""Image of the group influence over a run with *minus* the gradient dot product: negative = helpful in both."""

NUM_WINDOWS = "transition/windows"
"""Number of transition windows of a run, when it ends."""
FIRST_PEAK = "transition/first_peak"
"""Training step of the first window's peak; not logged without a window."""
FLAGGED_SHARE = "sampler/flagged_share"
"""Share of flagged probes, when the run ends; lost ones count as flagged."""

ACTIVE = "intervention/active"
"""1 while a window of an intervention is open, else 0; also 1 with weights of 1, in a placebo."""
CHANGES = "intervention/changes"
"""Text: every change of weights, and the budget."""

RUN_SUMMARY = "run/summary"
CLASSES = "run/classes"
"""Text: number of losses in each group, and in common to each two."""
SAMPLES = "run/samples"
"""Text: the most helpful and the most harmful samples and pairs of samples, at the end of a run."""

TOKENS = "influence/token_bif"
"""Text: the tokens that influence one token most."""
TOKEN_COLOURS = "influence/token_colours"
"""Image of text coloured by the influence of its tokens on one of them."""


def influence(part: str, group: str, group_j: str) -> str:
    """Tag of the BIF between two groups, nats^2, negative = helpful; ``part`` is one of PARTS."""
    return f"influence/{part}/{group}~{group_j}"


def influence_error(part: str, group: str, group_j: str) -> str:
    """Tag of the standard error of :func:`influence` over chains, nats^2."""
    return f"influence/{part}_se/{group}~{group_j}"


def influence_z(part: str, group: str, group_j: str) -> str:
    """Tag of :func:`influence` over its standard error, a pure number; negative = helpful."""
    return f"influence/{part}_z/{group}~{group_j}"


def trace(part: str) -> str:
    """Tag of the sum of the BIF of each sample with itself, nats^2; negative."""
    return f"influence/{part}/trace"


def matrix(part: str) -> str:
    """Tag of the image of the BIF between samples."""
    return f"influence/matrix/{part}"


def class_maps(part: str) -> str:
    """Tag of the image of the influence of classes on each other at some steps of a run."""
    return f"influence/classes/{part}"


def curves(part: str) -> str:
    """Tag of the image of the group influence over a run, with intervals."""
    return f"01_curves/influence_{part}"


def gradient_dot(group: str, group_j: str) -> str:
    """Tag of the gradient dot product between two groups, positive = helpful."""
    return f"baseline/graddot/{group}~{group_j}"


def control(group: str, group_j: str) -> str:
    """Tag of the BIF between two groups from chains without the loss (nbeta 0), within, nats^2, negative = helpful."""
    return f"control/{group}~{group_j}"


def tracin(group: str, group_j: str) -> str:
    """Tag of TracIn between two groups over the run so far, nats, positive = helpful."""
    return f"baseline/tracin/{group}~{group_j}"


def damped_influence(group: str, group_j: str) -> str:
    """Tag of the damped influence function between two groups, nats, negative = helpful."""
    return f"baseline/damped_influence/{group}~{group_j}"


def group_loss(group: str) -> str:
    """Tag of the mean loss of a group at the training weights, nats."""
    return f"influence/loss/{group}"


def llc(group: str) -> str:
    """Tag of the local learning coefficient of a group, nbeta times the rise of its mean loss, a pure number."""
    return f"llc/{group}"


def llc_error(group: str) -> str:
    """Tag of the standard error of :func:`llc` over chains, a pure number."""
    return f"llc_se/{group}"


def induction(score: str) -> str:
    """Tag of an induction metric: prefix_matching, previous_token, icl_score, loss_gap or copying."""
    return f"induction/{score}"


def group_weight(group: str) -> str:
    """Tag of the weight of a group's samples in the batch of the step, relative to 1 for samples in no group."""
    return f"intervention/weight/{group}"


MATRIX_PARTS = tuple(part for part in PARTS if part != "drift")
"""Parts that are shown as images."""
