"""False alarms of the online detector: windows that noise opens on a plateau.

    python benchmarks/false_alarms.py

Windows per 100 probes with the default settings, measured with 1,500 plateaus of 100 probes (seed 1): .001 is 2 windows
in 150,000 probes, and .22 one in every fifth plateau. *no error*: probes without errors; *error*: probes with the
standard deviation of the noise as error.

================  ==========  ==========  ==========  ==========
autocorrelation   rising      rising      either      either
of the noise      no error    error       no error    error
================  ==========  ==========  ==========  ==========
0                 .001        .000        .001        .000
.7                .035        .005        .077        .013
.9                .095        .009        .199        .023
================  ==========  ==========  ==========  ==========

The same with ``DetectorConfig(min_z=2.75, num_probes=1, max_length=100)``, which opens at the first probe that departs:
the price of an early detection. ``max_length`` has no effect on it (4 probes or 100: the same within .02).

================  ==========  ==========  ==========  ==========
autocorrelation   rising      rising      either      either
of the noise      no error    error       no error    error
================  ==========  ==========  ==========  ==========
0                 .22         .14         .40         .25
.7                .24         .09         .47         .19
.9                .30         .05         .62         .11
================  ==========  ==========  ==========  ==========

``falling`` has the same rates as ``rising``. They hold for a level plateau: a slow trend is a departure, not a false
alarm. The script prints both tables, in about a minute on one core.
"""

import argparse
import math
from dataclasses import replace
from itertools import product

import numpy as np

from stagewise.errors import require
from stagewise.phases.online_detector import DetectorConfig, Direction, OnlineDetector


def false_alarm_rate(
    config: DetectorConfig | None = None,
    *,
    autocorrelation: float = 0.0,
    error: float = math.nan,
    length: int = 100,
    num_runs: int = 300,
    seed: int = 0,
) -> float:
    """Simulates plateaus of standard normal noise and counts the windows.

    Args:
        config: settings of the detector; the defaults if None.
        autocorrelation: of successive probes, in (-1, 1), stationary AR(1). Large for probes with common random
            numbers.
        error: standard error of each probe, in standard deviations of the noise; NaN for none.
        length: probes per plateau.
        num_runs: number of plateaus.
        seed: of the noise.

    Returns:
        Windows opened per 100 probes.

    Raises:
        InputError: an autocorrelation outside of (-1, 1), or no probe.
    """
    require(-1 < autocorrelation < 1, "autocorrelation", autocorrelation, "a number in (-1, 1)", "0 is white noise")
    require(length >= 1 and num_runs >= 1, "length x num_runs", length * num_runs, "1 or more", "simulate more")
    noise = np.random.default_rng(seed).standard_normal((num_runs, length))
    for probe in range(1, length):
        noise[:, probe] *= math.sqrt(1 - autocorrelation**2)
        noise[:, probe] += autocorrelation * noise[:, probe - 1]
    opened = 0
    for run in noise:
        detector = OnlineDetector(config)
        for step, value in enumerate(run.tolist()):
            detector.update(step, value, error)
        opened += len(detector.windows)
    return 100 * opened / noise.size


AT_ONCE = DetectorConfig(min_z=2.75, num_probes=1, max_length=100)
"""Settings that open a window at the first probe that departs."""


def table(config: DetectorConfig, *, num_runs: int, seed: int) -> str:
    """Returns the rates of one detector as Markdown: rows by autocorrelation, columns by direction and error."""
    columns = list(product((Direction.rising, Direction.either), ((math.nan, "no error"), (1.0, "error"))))
    head = ["autocorrelation", *(f"{direction}, {words}" for direction, (_, words) in columns)]
    lines = [head, ["---"] * len(head)]
    for autocorrelation in (0.0, 0.7, 0.9):
        rates = [
            false_alarm_rate(
                replace(config, direction=direction),
                autocorrelation=autocorrelation,
                error=error,
                num_runs=num_runs,
                seed=seed,
            )
            for direction, (error, _) in columns
        ]
        lines.append([f"{autocorrelation:g}", *(f"{rate:.3f}" for rate in rates)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-runs", type=int, default=1500, help="plateaus of 100 probes")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for config in (DetectorConfig(), AT_ONCE):
        print(f"{config}\n\n{table(config, num_runs=options.num_runs, seed=options.seed)}\n")


if __name__ == "__main__":
    main()
