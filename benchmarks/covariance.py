"""Cost of the covariance of token losses, in units of a matrix product of the same shape.

    python benchmarks/covariance.py --json covariance.json

All pairs of 64 sequences x 63 token losses over 100 draws. The unit is one float32 product [4032, 100] x [100, 4032]
into new memory, by torch. Process CPU time on one thread; devinterp 2.0.1 if installed.
"""

from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO

import numpy as np
import torch
import xarray as xr
from harness import Row, arguments, compare, report, single_thread

from stagewise.influence.group_influence import group_influence
from stagewise.influence.groups import Groups
from stagewise.influence.split import Centering
from stagewise.influence.token_bif import token_bif, token_bif_blocks

SAMPLES, TOKENS, CHAINS, DRAWS, GROUPS = 64, 63, 4, 25, 10
CASE = f"{SAMPLES} x {TOKENS} token losses, {CHAINS * DRAWS} draws"


def devinterps(loss: np.ndarray, correlate: bool) -> Callable[[], np.ndarray] | None:
    """Returns a call of devinterp's covariance code, or None without devinterp."""
    try:
        from devinterp.slt.bif import compute_bif
    except ImportError:
        return None
    tree = xr.DataTree(
        xr.Dataset(
            {
                "loss_seen": (("chain", "draw", "batch", "token_pos"), loss),
                "input_ids_seen": (("batch", "token"), np.zeros((SAMPLES, TOKENS + 1), dtype=np.int64)),
            }
        )
    )

    def run() -> np.ndarray:
        with redirect_stderr(StringIO()):
            return compute_bif(tree, compute_covariance=not correlate, device="cpu")["influences"].values

    return run


def main() -> None:
    options = arguments(__doc__)
    single_thread()
    generator = np.random.default_rng(0)
    loss = (3 + 0.1 * generator.normal(size=(CHAINS, DRAWS, SAMPLES, TOKENS))).astype(np.float32)
    flat = torch.from_numpy(loss.reshape(CHAINS * DRAWS, -1))
    groups = Groups(
        {f"g{g}": generator.random((SAMPLES, TOKENS)) < 0.3 for g in range(GROUPS)}, np.ones(loss.shape[2:])
    )
    double = loss.astype(np.float64)

    def blocks() -> None:
        for _ in token_bif_blocks(loss, chunk_size=8):
            pass

    runs: dict[str, Callable[[], object]] = {
        "one matmul": lambda: flat.T @ flat,
        "stagewise, float32": lambda: token_bif(loss, centering=Centering.pooled),
        "stagewise, chain centring": lambda: token_bif(loss),
        "stagewise, correlation": lambda: token_bif(loss, correlate=True),
        "stagewise, float64": lambda: token_bif(double),
        "stagewise, in blocks of 8 samples": blocks,
        f"stagewise, {GROUPS} groups with errors": lambda: group_influence(groups.sums(loss), None, groups),
    }
    for name, correlate in (("covariance", False), ("correlation", True)):
        theirs = devinterps(loss, correlate)
        if theirs is not None:
            runs[f"devinterp 2.0.1, {name}"] = theirs
    times = compare(runs, options.rounds)
    floor = times["one matmul"]
    rows = [Row.of(CASE, name, "CPU time / one matmul", seconds, floor=floor) for name, seconds in times.items()]

    exact = token_bif(double).values
    deviation = np.sqrt(-np.einsum("itit->it", exact))
    scale = deviation[:, :, None, None] * deviation
    error = np.abs(token_bif(loss).values - exact) / scale
    rows.append(
        Row(
            CASE,
            "stagewise, float32",
            "largest error / (sd_i sd_j)",
            None,
            1,
            float(error.max()),
            "1",
            note="vs float64",
        )
    )
    report(rows, options.json)


if __name__ == "__main__":
    main()
