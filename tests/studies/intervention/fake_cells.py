"""Cells with known accelerations."""

from dataclasses import replace

from stagewise.studies.intervention.cell import Cell
from stagewise.studies.intervention.config import InterventionConfig, WeightSettings
from stagewise.studies.intervention.outcomes import Ablation, Curve

MAX_STEPS = 1200


def config_of(seeds, **changes):
    weights = WeightSettings(mechanisms=["sampling", "loss"])
    model = {"class_path": "a.Model"}
    return InterventionConfig(**{"model": model, "data": model, "seeds": list(seeds), "weights": weights, **changes})


def lower(cell, score, gap):
    """The same cell, of an experiment with other thresholds."""
    return replace(cell, curve=replace(cell.curve, score_threshold=score, gap_threshold=gap))


def curve_to(formed, last=MAX_STEPS):
    """A prefix score that rises linearly over 200 steps, and passes .5 right after ``formed``; None: never."""
    steps = tuple(range(0, last + 1, 10))
    if formed is None:
        return Curve(steps, tuple(0.1 for _ in steps), tuple(-0.1 for _ in steps))
    score = tuple(min(max(0.5 + (step - formed + 1) / 200, 0.02), 0.98) for step in steps)
    return Curve(steps, score, tuple(-3 * value - 0.001 for value in score))


def fake_cell(seed, arm, formed, *, mechanism="sampling", windows=(), run=True, note="", rise=0.5, **changes):
    fields = {
        "seed": seed,
        "arm": arm,
        "mechanism": "none" if arm in ("none", "placebo") else mechanism,
        "windows": tuple(windows),
        "note": note,
        "max_steps": MAX_STEPS,
        "end": MAX_STEPS,
        "curve": curve_to(formed) if run else None,
        "final_losses": {"background": 2.0 + 0.01 * (arm != "none"), "induction": 1.0} if run else {},
        "ablation": Ablation(1, 2, 1.0, 1.0 + rise) if run else None,
        "moved": 0.0 if arm in ("none", "placebo") else 100.0,
        "branched_at": 0,
        "seconds": 1.5 * seed,
        "timeline": {"onset": 400 + 10 * seed, "peak": 600} if arm == "none" else {},
    }
    return Cell(**{**fields, **changes})
