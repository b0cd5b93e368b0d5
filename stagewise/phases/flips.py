"""Sign changes of a curve over training, with bounds and significance."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtrit

from stagewise.checks.bounds import MaybeInfinite, checked, float_array, settle_fields
from stagewise.errors import InputError, require

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SignFlip:
    """Change of a curve from significantly one sign to significantly the other.

    Attributes:
        step: training step of the zero crossing, interpolated between probes.
        earliest: training step of the last significant probe of the old sign: the flip is not before it.
        latest: training step of the first significant probe of the new sign: the flip is not after it.
        before: largest value (in size) of the significant stretch before the flip, in the unit of the curve.
        after: largest value (in size) of the significant stretch after the flip, same unit.
        z_before: ``before`` over its standard error, a pure number; infinite for a zero error.
        z_after: ``after`` over its standard error.

    Raises:
        InputError: values of one sign, or a crossing outside of its bounds.
    """

    step: float
    earliest: int
    latest: int
    before: float
    after: float
    z_before: MaybeInfinite
    z_after: MaybeInfinite

    def __post_init__(self) -> None:
        settle_fields(self)
        signs = np.sign([self.before, self.z_before, self.after, self.z_after]).tolist()
        if signs not in ([-1, -1, 1, 1], [1, 1, -1, -1]):
            raise InputError(
                f"got a sign flip from {self.before:g} (z {self.z_before:g}) to {self.after:g} (z {self.z_after:g}); "
                "expected opposite signs, each that of its z"
            )
        if not self.earliest <= self.step <= self.latest:
            raise InputError(f"got step={self.step}; expected one in [{self.earliest}, {self.latest}]")

    @property
    def words(self) -> str:
        """Flip of an influence, where negative = helpful: ``helpful, then harmful``, or the reverse.

        For curves where positive = helpful (gradient dot product, TracIn), negate them first.
        """
        return "helpful, then harmful" if self.before < 0 else "harmful, then helpful"


@checked
def find_flips(
    steps: ArrayLike, values: ArrayLike, errors: ArrayLike, *, min_z: float = 3.0, degrees: float | None = None
) -> list[SignFlip]:
    """Finds where a curve over training changes its sign, beyond its errors.

    A probe is *significant* if its value is larger, in size, than ``min_z`` errors. A flip lies between two consecutive
    significant probes of opposite sign. Other probes between them only affect the place of the crossing, interpolated
    linearly in the logarithm of the step. Of several crossings, the one nearest the middle of the two on that axis
    counts; the earlier in a tie. If the first of the two is at the initial weights, step 0, the logarithm is that of 1
    + step.

    False flips: of n probes with independent noise, each is significant with probability p = .0027 at ``min_z`` 3, and
    the curve has a flip with probability 1 - 2 (1 - p/2)^n + (1 - p)^n, about (n p / 2)^2: .004 for 48 probes. This
    holds for each curve of a run (pair of groups).

    Args:
        steps: ``[probe]``, increasing whole numbers, 0 for the initial weights.
        values: ``[probe]``, e.g. ``group_bif`` of two groups, any unit. Probes that are not finite are ignored.
        errors: ``[probe]``, their standard errors, e.g. ``group_bif_se``. Probes with NaN are ignored.
        min_z: standard errors beyond which a value is significant.
        degrees: degrees of freedom of the errors: chains - 1 for jackknife errors over chains. The limit is then the
            quantile of Student's t that is as rarely exceeded as ``min_z`` by a normal deviate: 9.2 instead of 3 with 4
            chains. None treats the errors as known: with jackknife errors over 4 chains, a third of noise curves of 30
            probes then have a flip (measured), instead of .15 %.

    Returns:
        The flips, in order; none with fewer than two probes.

    Raises:
        InputError: lengths differ, steps do not increase, a negative error, ``min_z`` outside of (0, 20], or
            ``degrees`` that are not positive.

    Source: Student's t for a mean over few chains, Student 1908.
    """
    at, value, error = (
        float_array(name, given) for name, given in (("steps", steps), ("values", values), ("errors", errors))
    )
    if at.ndim != 1 or not at.shape == value.shape == error.shape:
        raise InputError(
            f"got steps {list(at.shape)}, values {list(value.shape)} and errors {list(error.shape)}; expected equal "
            "lengths"
        )
    if not (np.isfinite(at) & (at >= 0) & (at == np.rint(at))).all() or (np.diff(at) <= 0).any():
        raise InputError("got steps that do not count up; expected increasing whole numbers >= 0, one for each probe")
    if (error < 0).any():
        raise InputError("got a negative standard error; expected 0 or more, or NaN where it is not known")
    limit = sure_limit(min_z, degrees)
    known = np.isfinite(value) & ~np.isnan(error)
    at, value, error = at[known], value[known], error[known]
    sure = np.flatnonzero(np.abs(value) > limit * error)
    if len(sure) < 2:
        return []
    score = np.divide(value, error, out=np.copysign(np.inf, value), where=error > 0)
    stretches = np.split(sure, np.flatnonzero(np.diff(np.sign(value[sure]))) + 1)
    flips = []
    for before, after in pairwise(stretches):
        first, last = before[-1], after[0]
        top, other = (stretch[np.argmax(np.abs(value[stretch]))] for stretch in (before, after))
        flips.append(
            SignFlip(
                step=_crossing(at[first : last + 1], value[first : last + 1]),
                earliest=int(at[first]),
                latest=int(at[last]),
                before=float(value[top]),
                after=float(value[other]),
                z_before=float(score[top]),
                z_after=float(score[other]),
            )
        )
    return flips


def min_z_for_chance(num_probes: int, chance: float) -> float:
    """Returns the ``min_z`` at which :func:`find_flips` finds a flip in pure noise with a given probability.

    For a zero curve with independent, normal noise at each probe, 1 - 2 (1 - p/2)^n + (1 - p)^n is solved for p, the
    probability that a probe is significant. Noise shared by probes makes flips rarer.

    Args:
        num_probes: of the curve, n.
        chance: probability of at least one flip, in (0, .5]; for m curves together, divide it by m (Bonferroni).

    Returns:
        Number of standard errors, for known errors; ``degrees`` of :func:`find_flips` corrects for unknown ones.

    Raises:
        InputError: fewer than two probes, or a chance out of range.
    """
    require(num_probes >= 2, "num_probes", num_probes, "2 or more", "a flip has two sides")
    require(0 < chance <= 0.5, "chance", chance, "a probability in (0, 0.5]", "0.05 is usual")

    def excess(log_p: float) -> float:
        p = math.exp(log_p)
        # expm1 and log1p, since these are differences of numbers near 1.
        one_side, either = (math.expm1(num_probes * math.log1p(-share)) for share in (p / 2, p))
        return either - 2 * one_side - chance

    # Two probes that are always significant have opposite signs half of the time.
    if excess(math.log1p(-1e-12)) < 0:
        return 1e-3
    return -float(ndtri(math.exp(brentq(excess, -60.0, math.log1p(-1e-12))) / 2))


def sure_limit(min_z: float, degrees: float | None = None) -> float:
    """Returns the number of standard errors beyond which a value is significant.

    Args:
        min_z: this number for known errors.
        degrees: degrees of freedom of the errors; None if they are known.

    Raises:
        InputError: ``min_z`` outside of (0, 20], or ``degrees`` that are not positive.
    """
    require(0 < min_z <= 20, "min_z", min_z, "a number in (0, 20]", "3 is usual")
    if degrees is None:
        return min_z
    require(
        0 < degrees < math.inf,
        "degrees",
        degrees,
        "degrees of freedom above 0",
        "pass the number of chains less 1, or None where the errors are known",
    )
    return -float(stdtrit(degrees, ndtr(-min_z)))


def _crossing(steps: Array, values: Array) -> float:
    """Returns the step of the zero crossing nearest the middle; ``values`` have opposite signs at the ends."""
    from_start = steps[0] == 0
    place = np.log1p(steps) if from_start else np.log(steps)
    left, right = values[:-1], values[1:]
    turns = np.flatnonzero(np.sign(left) * np.sign(right) < 0)
    share = left[turns] / (left[turns] - right[turns])
    crossings = np.sort(np.concatenate([place[values == 0], place[turns] + share * np.diff(place)[turns]]))
    # Rounded, so that the earlier of two equally near crossings is taken.
    nearest = crossings[np.argmin(np.round(np.abs(crossings - (place[0] + place[-1]) / 2), 9))]
    step = np.expm1(nearest) if from_start else np.exp(nearest)
    return float(np.clip(step, steps[0], steps[-1]))
