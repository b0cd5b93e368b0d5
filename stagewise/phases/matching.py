"""Agreement of detected windows with known transitions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from stagewise.checks.bounds import checked, float_array
from stagewise.errors import InputError, require
from stagewise.phases.window import Window


@dataclass(frozen=True)
class WindowMatch:
    """Agreement of windows with known transitions.

    Attributes:
        precision: share of the windows that match a transition; NaN without windows.
        recall: share of the transitions that match a window; NaN without transitions.
        timing: median over the pairs of |log peak - log truth|, a pure number: .1 is about 10 % of the step; NaN
            without a pair.
        pairs: positions of the window and the transition of each pair, in the order of the windows.
    """

    precision: float
    recall: float
    timing: float
    pairs: tuple[tuple[int, int], ...]


@checked
def match_windows(windows: Sequence[Window], truth: ArrayLike, *, tolerance: float = 0.1) -> WindowMatch:
    """Matches windows and known transitions one to one, by their peaks in the logarithm of the training step.

    A window and a transition may form a pair if |log peak - log truth| is at most ``tolerance``. Among all matchings
    with the most pairs, the one with the least sum of distances is chosen.

    Args:
        windows: detected windows, see :func:`~stagewise.phases.offline.find_windows`; in any order.
        truth: ``[transition]``, training steps of known transitions, in any order; need not be whole numbers.
        tolerance: largest difference of the natural logarithms; .1 allows a peak to be 9.5 % early or 10.5 % late.

    Raises:
        InputError: steps that are not finite or not positive, which have no logarithm, or a ``tolerance`` that is not
            positive.

    Source: the assignment problem, Kuhn 1955.
    """
    known = float_array("truth", truth)
    if known.ndim != 1:
        raise InputError(f"got truth of shape {list(known.shape)}; expected one training step for each transition")
    peaks = np.array([window.peak for window in windows], dtype=np.float64)
    for name, steps in (("truth", known), ("peaks of windows", peaks)):
        if not (np.isfinite(steps) & (steps > 0)).all():
            raise InputError(f"got {name} {steps.tolist()}; expected finite training steps above 0; leave others out")
    require(
        0 < tolerance < math.inf, "tolerance", tolerance, "a finite number above 0", "0.1 is about 10 % of the step"
    )

    distance = np.abs(np.log(peaks)[:, None] - np.log(known)[None])
    allowed = distance <= tolerance
    # In units of the tolerance all allowed pairs together cost less than one forbidden pair: the most pairs win.
    forbidden = 1.0 + min(distance.shape)
    rows, columns = linear_sum_assignment(np.where(allowed, distance / tolerance, forbidden))
    kept = allowed[rows, columns]
    rows, columns = rows[kept], columns[kept]
    return WindowMatch(
        precision=len(rows) / len(peaks) if len(peaks) else math.nan,
        recall=len(rows) / len(known) if len(known) else math.nan,
        timing=float(np.median(distance[rows, columns])) if len(rows) else math.nan,
        pairs=tuple(zip(rows.tolist(), columns.tolist(), strict=True)),
    )
