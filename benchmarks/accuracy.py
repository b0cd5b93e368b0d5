"""Error of the covariance of the losses after a given number of draws, compared with independent draws.

    python benchmarks/accuracy.py --json accuracy.json

Bayesian linear regression: the local posterior is a Gaussian and the covariance of the losses is known exactly,
g_i^T S g_j + (x_i^T S x_j)^2 / 2. Chains run around the minimum, and around weights half-way to it, where the slope
pulls a plain chain away. Each chain is compared with its own target (a tilted chain stays at the training weights, the
others slide to the localized mode). Independent draws from these targets are the best that any sampler could do.

The error is |C - exact| / |exact| (Frobenius) over all pairs of 32 observed samples; the ratio is to the same number of
independent draws. Notes give the gradient steps per draw. Rounds are seeds; intervals are 95 % of the mean over seeds
(Student's t).
"""

import time

import numpy as np
import torch
from harness import Row, arguments, report, single_thread
from scipy.stats import t as student
from torch import nn

from stagewise.calibration.landscape import Landscape
from stagewise.calibration.resolve import resolve
from stagewise.influence.split import Centering
from stagewise.influence.token_bif import token_bif
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Drift, Integrator, SGLDConfig, Start
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.target import Target

FEATURES, SAMPLES, OBSERVED = 10, 200, 32
NBETA, LOCALIZATION, CHAINS, BATCH = 200.0, 20.0, 4, 20
STEEPEST = NBETA + LOCALIZATION
DRAWS = (50, 200, 800, 3200)

SECOND_ORDER = {"lr": 2.5 / STEEPEST}
EULER = {
    "integrator": Integrator.euler,
    "start": Start.anchor,
    "lr": 0.3 / STEEPEST,
    "num_burnin_steps": 150,
    "num_steps_bw_draws": 1,
}
WHOLE = {"drift": Drift.plain, "batch_size": SAMPLES}

SAMPLERS: dict[str, dict[str, object]] = {
    "whole batches": {**SECOND_ORDER, **WHOLE, "num_steps_bw_draws": 1},
    "whole batches, spaced": {**SECOND_ORDER, **WHOLE, "num_steps_bw_draws": 4},
    "EK-FAC, whole batches": {"lr": 2.5, **WHOLE, "num_steps_bw_draws": 1, "preconditioner": EKFAC(loss="mse")},
    f"settled by itself, batches of {BATCH}": {},
    f"settled by itself, tilted, batches of {BATCH}": {"drift": Drift.tilted},
    f"settled by itself, plain, batches of {BATCH}": {"drift": Drift.plain},
    "Euler from w*, whole batches": {**EULER, **WHOLE},
    f"Euler from w*, plain, batches of {BATCH}": {**EULER, "drift": Drift.plain},
    f"Euler from w*, control variates, batches of {BATCH}": {**EULER, "drift": Drift.control_variate},
    f"Euler from w*, tilted, batches of {BATCH}": {**EULER, "drift": Drift.tilted},
}
"""Settings by name; omitted ones are ``auto`` or defaults. Chosen on seeds 100 to 105."""


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs and targets with curvatures from 1 down to .1."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -0.5, FEATURES, dtype=torch.float64)
    x = torch.randn(SAMPLES, FEATURES, generator=generator, dtype=torch.float64)
    x = torch.linalg.qr(x).Q * SAMPLES**0.5 * scale
    y = x @ torch.randn(FEATURES, 1, generator=generator, dtype=torch.float64)
    return x, y + 0.5 * torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64)


def squared(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return ((module(batch[0]) - batch[1]) ** 2).sum(1) / 2


class Truth:
    """The Gaussian that a chain around ``anchor`` samples, and the covariance of the observed losses under it."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, anchor: torch.Tensor, drift: Drift) -> None:
        self.x, self.y = x[:OBSERVED].numpy(), y[:OBSERVED, 0].numpy()
        self.spread = np.linalg.inv(NBETA * (x.T @ x / SAMPLES).numpy() + LOCALIZATION * np.eye(FEATURES))
        slope = ((x @ anchor - y[:, 0]) @ x / SAMPLES).numpy()
        self.mode = anchor.numpy() - (0 if drift is Drift.tilted else NBETA * self.spread @ slope)
        gradients = (self.x @ self.mode - self.y)[:, None] * self.x
        self.covariance = gradients @ self.spread @ gradients.T + (self.x @ self.spread @ self.x.T) ** 2 / 2

    def error(self, loss: np.ndarray) -> float:
        """Returns the relative error of the covariance of ``[chain, draw, sample]``, with means over all draws."""
        got = -token_bif(loss.astype(np.float64), centering=Centering.pooled).values
        return float(np.linalg.norm(got - self.covariance) / np.linalg.norm(self.covariance))

    def independent(self, seed: int) -> np.ndarray:
        """Returns losses at independent draws, ``[1, draw, sample]``."""
        draws = np.random.default_rng(seed).multivariate_normal(self.mode, self.spread, size=max(DRAWS))
        return (((draws @ self.x.T - self.y) ** 2) / 2)[None]


def numbers(module: nn.Module, sampling: tuple[torch.Tensor, torch.Tensor], settings: dict[str, object]) -> SGLDConfig:
    """Returns the sampler; step, drift and spacing that are ``auto`` are resolved from measured curvature."""
    common = {"nbeta": NBETA, "localization": LOCALIZATION, "num_chains": CHAINS, "num_draws": max(DRAWS) // CHAINS}
    config = SGLDConfig(**{**common, "batch_size": BATCH, **settings})  # type: ignore[arg-type]
    if not {"lr", "drift", "num_steps_bw_draws"} & set(config.unresolved):
        return config
    return resolve(config, Landscape(Target(squared, sampling)), module)[0]


def interval(values: list[float]) -> tuple[float, float, float]:
    """Returns the mean and the ends of its 95 % interval."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(student.ppf(0.975, len(values) - 1)) * error
    return mean, mean - reach, mean + reach


def main() -> None:
    options = arguments(__doc__, rounds=8)
    single_thread()
    x, y = data()
    minimum = torch.linalg.lstsq(x, y).solution[:, 0]
    rows = []
    for case, anchor in {"at the minimum": minimum, "half-way to it": minimum / 2}.items():
        truths: dict[Drift, Truth] = {drift: Truth(x, y, anchor, drift) for drift in Drift if drift is not Drift.auto}
        module = nn.Linear(FEATURES, 1, bias=False).double()
        module.weight.data = anchor[None].clone()
        alone = {
            drift: {n: [truth.error(truth.independent(seed)[:, :n]) for seed in range(options.rounds)] for n in DRAWS}
            for drift, truth in truths.items()
        }
        for name, settings in SAMPLERS.items():
            errors: dict[int, list[float]] = {n: [] for n in DRAWS}
            seconds = 0.0
            for seed in range(options.rounds):
                start = time.process_time()
                config = numbers(module, (x, y), {"seed": seed, **settings})
                observed = (x[:OBSERVED], y[:OBSERVED])
                loss = run_chains(module, squared, observed=observed, sampling=(x, y), config=config).loss
                seconds += time.process_time() - start
                for n in DRAWS:
                    errors[n].append(truths[config.drift].error(loss[:, : n // CHAINS]))
            lr = config.require_resolved().lr
            note = (
                f"{config.steps_bw_draws} gradient steps a draw, {config.burnin_steps} before the first; lr {lr:.3g}, "
                f"{config.drift}; {1e3 * seconds / options.rounds / max(DRAWS):.2g} CPU ms a draw"
            )
            for n in DRAWS:
                best = float(np.mean(alone[config.drift][n]))
                ratio, low, high = interval([error / best for error in errors[n]])
                value = float(np.mean(errors[n]))
                measure = f"error after {n} draws / independent draws"
                rows.append(Row(case, name, measure, ratio, options.rounds, value, "relative", low, high, note))
        for drift, title in ((Drift.plain, "independent draws"), (Drift.tilted, "independent draws, tilted target")):
            if drift is Drift.tilted and anchor is minimum:
                continue  # the same target
            for n in DRAWS:
                value, low, high = interval(alone[drift][n])
                measure = f"error after {n} draws"
                rows.append(Row(case, title, measure, None, options.rounds, value, "relative", low, high))
    report(rows, options.json)


if __name__ == "__main__":
    main()
