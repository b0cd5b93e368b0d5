"""Run in memory with known influence: one group's turns from helpful to harmful, the other's is noise."""

import json

import numpy as np
import xarray as xr

PARTS = ("within", "drift", "between", "total")
STEPS = np.arange(100, 1100, 100)


def flipping_run(*, error=0.1, chains=8, with_summary=True):
    """Influence of ``cat`` on itself rises from -1 to 1 and is 0 at step 550; that of ``dog`` is noise."""
    slope = np.linspace(-1, 1, len(STEPS))
    noise = 0.5 * error * np.random.default_rng(0).standard_normal((len(STEPS), 2))
    value = np.zeros((len(STEPS), 4, 2, 2))
    for part in (0, 3):
        value[:, part, 0, 0] = slope
        value[:, part, 1, 1] = noise[:, 0]
        value[:, part, 0, 1] = value[:, part, 1, 0] = noise[:, 1]
    axes = ("step", "part", "group", "group_j")
    run = xr.Dataset(
        {"group_bif": (axes, value), "group_bif_se": (axes, np.full(value.shape, error))},
        coords={"step": STEPS, "part": list(PARTS), "group": ["cat", "dog"], "group_j": ["cat", "dog"]},
        attrs={
            "version": "0.0",
            "sgld": {
                "num_chains": chains, "num_draws": 5, "nbeta": 10.0, "localization": 100.0, "lr": 1e-4, "seed": 3,
            },
        },
    )  # fmt: skip
    if with_summary:
        window = {"start": 400, "peak": 500, "end": 700, "value": 0.25}
        summary = {"flags": {"rhat": 2}, "probes_flagged": 2, "probes": 10, "transitions": [window]}
        run.attrs["summary"] = json.dumps(summary)
    return run
