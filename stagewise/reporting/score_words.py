"""Scores of heads in words: their rise, and the groups that move with them."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from stagewise.reporting.rise_words import rises_markdown
from stagewise.reporting.scores import INDUCING, Score, copying_of_induction_heads
from stagewise.runs.moving_groups import moves

_UNITS = {"icl_score": " nats", "loss_gap": " nats"}


def _score_line(every: Score) -> str:
    score = every.known()
    unit = _UNITS.get(score.name, "")
    rise = score.rise()
    when = "-" if rise is None else f"{rise[0]:,} to {rise[1]:,}"
    low, high = int(np.argmin(score.values)), int(np.argmax(score.values))
    return (
        f"| {score.name} | {score.values[0]:.3f}{unit} | {score.values[-1]:.3f}{unit} | {score.values[low]:.3f} at "
        f"{score.steps[low]:,} | {score.values[high]:.3f} at {score.steps[high]:,} | {when} |"
    )


def scores_markdown(run: xr.Dataset, scores: Sequence[Score]) -> str:
    """Returns Markdown: a table of scores, the groups whose influence changes while heads form, and its course.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with group influence.
        scores: of its heads; a sentence says so if there are none.
    """
    if not scores:
        return "No score of heads was measured (`InductionCallback`, or a sweep with circuits)."
    lines = ["| score | first | last | lowest | highest | rises (1/4 to 3/4 of its way) |", "|---|---|---|---|---|---|"]
    shown = copying_of_induction_heads(scores)
    parts = ["\n".join([*lines, *map(_score_line, shown)])]
    if "copying" in {score.name for score in scores}:
        parts.append(
            f"Copying is that of the head with the best prefix matching, from {INDUCING:g} on: below, no head is an "
            "induction head and the score is noise."
        )
    for score in shown:
        rise = score.rise()
        if score.name not in ("prefix_matching", "previous_token") or rise is None:
            continue
        found = moves(run, *rise)
        if not found:
            parts.append(f"While {score.name} rises there are no probes in equilibrium around it.")
            continue
        sure = [
            f"{flip.group} {flip.before:+.2e} to {flip.after:+.2e} (z {flip.z:+.1f})" for flip in found if flip.sure
        ] or ["none beyond its errors"]
        still = [flip.group for flip in found if not flip.sure]
        parts.append(
            f"**While {score.name} rises**, steps {rise[0]:,} to {rise[1]:,}, the influence of these groups on "
            f"themselves changes (within, nats²; first probe against last, each group tested alone): {'; '.join(sure)}."
            + (f" Indistinguishable from noise: {', '.join(still)}." if still else "")
        )
    course = rises_markdown(run, scores)
    return "\n\n".join(parts if course is None else [*parts, course])
