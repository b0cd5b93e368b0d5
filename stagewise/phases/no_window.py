"""Explanations why a signal has no window, with advice."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.checks.bounds import checked, float_array
from stagewise.checks.counted import counted
from stagewise.errors import InputError
from stagewise.phases.offline import MIN_PROMINENCE, NOISE_MULTIPLE, noise_height

Array = NDArray[np.float64]

_LEAST = 3
"""Fewest probes with a signal that can have a peak."""

_FIX = (
    "Before probing earlier, set sgld.lr and sgld.localization to the resolved values of this run: auto is resolved at "
    "the first probe, where curvature may be far smaller"
)


@checked
def why_no_window(
    steps: ArrayLike,
    values: ArrayLike,
    errors: ArrayLike | None = None,
    *,
    min_prominence: float = MIN_PROMINENCE,
    unit: str = "nats",
) -> str | None:
    """Explains why :func:`~stagewise.phases.offline.find_windows` finds no window, and what to change.

    Args:
        steps: ``[probe]``, increasing.
        values: ``[probe]``, the signal; NaN at a probe without a reference, or with a severe flag.
        errors: ``[probe]``, its standard errors; NaN where unknown.
        min_prominence: setting of the search for windows.
        unit: of the signal.

    Returns:
        One or two sentences; None if there is a window.

    Raises:
        InputError: lengths differ.
    """
    at, value = float_array("steps", steps), float_array("values", values)
    error = np.full(value.shape, np.nan) if errors is None else float_array("errors", errors)
    if at.ndim != 1 or not at.shape == value.shape == error.shape:
        raise InputError(
            f"got steps {list(at.shape)}, values {list(value.shape)} and errors {list(error.shape)}; expected equal "
            "lengths; give one of each for every probe"
        )
    known = np.isfinite(value)
    if known.sum() < _LEAST:
        return _too_few(len(at), int(known.sum()))
    at, value, error = at[known], value[known], error[known]
    top = int(value.argmax())
    if value[top] <= 0:
        return (
            f"the signal is nowhere above its noise floor, at none of {counted(len(at), 'probe')}: nothing changed "
            "between probes beyond noise; probe farther apart, or raise sgld.num_chains or sgld.num_draws"
        )
    # Imported late, since it is slow to import.
    from scipy.signal import find_peaks

    peaks, _ = find_peaks(value)
    if len(peaks):
        return _too_low(at, value, peaks, min_prominence, noise_height(error), unit)
    rest = f"it has no peak between its {counted(len(at), 'probe')}"
    if top == 0:
        return f"{_falls(at)}, and {rest}. {_FIX}"
    if top == len(at) - 1:
        return (
            f"the signal is largest at its last probe (step {at[-1]:,.0f}): what changes there is not over, {rest}; "
            "train on, or probe later"
        )
    return f"{rest}: it is flat at the top; probe more often (schedule of the callback)"


def _falls(at: Array) -> str:
    return (
        f"the signal is largest at its first probe (step {at[0]:,.0f}) and falls from there, so what changes began "
        "before: probe earlier (schedule of the callback), or train from the start"
    )


def _too_few(probes: int, known: int) -> str:
    if not probes:
        return "no probe was kept"
    if probes == 1:
        return (
            f"a single probe was kept; a peak takes {_LEAST} with a signal; probe more often (schedule of the callback)"
        )
    if not known:
        return (
            f"none of {counted(probes, 'probe')} has a signal: a probe is held against an earlier one, its reference, "
            "which the first probes lack; probe more often, so that a probe lies before step / probe.reference_ratio, "
            "and look at severe flags"
        )
    return (
        f"{known} of {counted(probes, 'probe')} {'has' if known == 1 else 'have'} a signal (the first ones lack a "
        "reference), and "
        f"a peak takes {_LEAST}; probe more often (schedule of the callback)"
    )


def _too_low(at: Array, value: Array, peaks: Array, min_prominence: float, noise: float, unit: str) -> str | None:
    from scipy.signal import peak_prominences

    heights = peak_prominences(value, peaks)[0]
    best = int(heights.argmax())
    height, share = float(heights[best]), float(heights[best] / value.max())
    if height >= max(min_prominence * value.max(), noise):
        return None
    peak = f"its most prominent peak (step {at[peaks[best]]:,.0f}) stands out by {height:.2g} {unit}"
    if height < noise:
        small = (
            f"the signal's peaks are indistinguishable from noise: {peak}, less than {NOISE_MULTIPLE:g} standard "
            f"errors ({noise:.2g}); raise sgld.num_chains or sgld.num_draws"
        )
    else:
        small = (
            f"the signal's peaks are small: {peak}, {100 * share:.0f} % of its largest value, where min_prominence "
            f"asks for {100 * min_prominence:.0f} %; lower probe.min_prominence, or --min_prominence of stagewise "
            "detect"
        )
    return f"{_falls(at)}; of what follows {small}. {_FIX}" if value.argmax() == 0 else small
