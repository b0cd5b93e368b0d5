"""Comparison of the demo's influence with that of the posterior, from long chains, on seeds not used for its settings.

    python benchmarks/equilibrium.py --seeds 11 12 13 14 15 --json benchmarks/results/equilibrium.json

Trains `configs/induction.yaml` without probes for each seed and keeps the weights of some steps. At each of them, for
each pair of groups:

- truth: the within part of long chains, with half the step size, twice the steps between draws, minibatches twice as
  large, and other random numbers; its error is a jackknife over chains. With --truth, the truth comes instead from
  `independent_truth.py`, a program that shares no code with stagewise, for the same weights and data: --export FOLDER
  writes its input, and a digest verifies that weights and data are the same;
- estimates: probes with the configuration's own settings, one per sampler seed;
- control: the same without any loss (nbeta 0), for a few seeds.

Prints the ratio of the mean estimate to the truth over pairs with significant truth, the number of correct signs, how
often the interval of a single probe contains the truth, how many probes are flagged and why, and effective draws per
draw. Then, on seed 1 at step 540, prints bias, spread and root mean square error of single estimates for three
settings: the demo's, cheaper ones at the cost of the demo's former probe, and that former probe itself (Euler steps
from the training weights, no burn-in).
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from scipy.special import stdtrit

from stagewise.cli.training import run_trainer
from stagewise.influence.group_influence import group_influence
from stagewise.influence.groups import Groups
from stagewise.influence.split import Centering
from stagewise.losses.contract import evaluate, resolve_loss
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Drift, Integrator, SGLDConfig, Start

CONFIG = "configs/induction.yaml"
TOLD_FROM_ZERO = 4.0
"""Least |truth| over its error for a pair to count: its ratio is then known to a quarter."""

BEFORE = {
    "lr": 1e-4,
    "num_chains": 4,
    "num_draws": 20,
    "num_burnin_steps": 0,
    "num_steps_bw_draws": 1,
    "integrator": Integrator.euler,
    "start": Start.anchor,
    "drift": Drift.plain,
}
"""Settings of the demo's former probes."""

Truth = Callable[[int], tuple[np.ndarray, np.ndarray, tuple[str, ...]]]
"""Maps a step to influence ``[group, group]``, its error, and the names of the groups."""

CONTROLS = 3
"""Number of sampler seeds of the control."""

EQUAL_COST = {"num_draws": 8, "num_steps_bw_draws": 1, "num_burnin_steps": 2, "batch_size": 16}
"""The demo's settings with fewer steps and draws, at about the cost of a former probe."""


class KeepWeights(Callback):
    """Callback that copies the weights at some steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = set(steps)
        self.kept: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Copies the weights if the step is one of them."""
        if trainer.global_step in self.steps:
            self.kept[trainer.global_step] = {name: value.clone() for name, value in pl_module.state_dict().items()}


def digest(tensors: Sequence[torch.Tensor]) -> str:
    """Returns a text that differs if weights or data do."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


class Demo:
    """The demo's model at some steps of one seed, with its probe data and settings."""

    def __init__(self, seed: int, steps: Sequence[int], config: str = CONFIG) -> None:
        with tempfile.TemporaryDirectory() as folder:
            keep = KeepWeights(steps)
            changes = {
                "influence.enabled": "false",
                "seed_everything": seed,
                "data.init_args.seed": seed,
                "trainer.logger.init_args.save_dir": folder,
                "trainer.max_steps": max(steps),
                "trainer.enable_progress_bar": "false",
            }
            cli = run_trainer(
                ["fit", "-c", config, *(f"--{name}={value}" for name, value in changes.items())], callbacks=[keep]
            )
        self.module, self.data, self.kept = cli.model.eval(), cli.datamodule.probe_data(), keep.kept
        influence = next(
            callback for callback in cli.trainer.callbacks if type(callback).__name__ == "InfluenceCallback"
        )
        self.sgld: SGLDConfig = influence.sgld
        self.probe: ProbeConfig = replace(influence.probe, save_trace=False, draw_matrices=False)
        self.loss_fn = resolve_loss(self.module)

    def at(self, step: int) -> None:
        """Loads the weights of a step."""
        self.module.load_state_dict(self.kept[step])

    def digest(self) -> str:
        """Returns a digest of the model's current weights and of the data of its probes."""
        return digest([*self.module.parameters(), self.data.observed["input_ids"], self.data.sampling["input_ids"]])

    def export(self, step: int, path: Path) -> None:
        """Writes a checkpoint as input for `independent_truth.py`."""
        self.at(step)
        config = self.module.model.config
        with torch.no_grad():
            losses = evaluate(self.loss_fn, self.module, self.data.observed).values
        resolved = self.sgld.require_resolved()
        lr, localization = resolved.lr, resolved.localization
        torch.save(
            {
                "weights": {
                    name.removeprefix("model."): item.detach() for name, item in self.module.named_parameters()
                },
                "heads": config.num_attention_heads,
                "rope_base": config.rope_parameters["rope_theta"],
                "observed": self.data.observed["input_ids"],
                "sampling": self.data.sampling["input_ids"],
                "losses": losses,
                "masks": torch.stack(list(self.data.groups.values())),
                "groups": list(self.data.groups),
                "nbeta": self.sgld.nbeta,
                "localization": localization,
                "lr": lr,
                "digest": self.digest(),
            },
            path,
        )

    def known_truth(self, step: int, rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Returns the truth of the independent program for the weights of a step."""
        self.at(step)
        mine = self.digest()
        found = [row for row in rows if row["digest"] == mine and row["integrator"] == "leimkuhler_matthews"]
        if not found or found[0]["groups"] != list(self.data.groups):
            raise SystemExit(f"got no truth for weights and data {mine} of step {step}; export and compute them anew")
        return np.array(found[0]["influence"]), np.array(found[0]["error"]), tuple(found[0]["groups"])

    def estimate(self, step: int, sgld: SGLDConfig) -> dict[str, Any]:
        """Takes one probe; returns its results and CPU seconds."""
        self.at(step)
        prober = Prober(self.module, self.loss_fn, self.data, sgld=sgld, config=self.probe)
        start = time.process_time()
        result, _ = prober.probe(self.module, step)
        seconds = time.process_time() - start
        assert result is not None
        within = result.sel(part="within")
        return {
            "value": within["group_bif"].values,
            "error": within["group_bif_se"].values,
            "flags": str(result["flag_names"].values),
            "ess_per_draw": float(result["ess_groups"]) / (sgld.num_chains * sgld.num_draws),
            "seconds": seconds,
        }

    def truth(self, step: int, draws: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Returns the within part ``[group, group]`` of long chains, its error, and the names of the groups."""
        self.at(step)
        lr = self.sgld.require_resolved().lr
        long = replace(
            self.sgld,
            lr=lr / 2,
            num_chains=8,
            num_draws=draws // 8,
            num_burnin_steps=20,
            num_steps_bw_draws=2 * self.sgld.steps_bw_draws,
            batch_size=2 * self.sgld.batch_size,
            seed=10_000,
        )
        trace = run_chains(
            self.module, self.loss_fn, observed=self.data.observed, sampling=self.data.sampling, config=long, step=step
        )
        groups = Groups({name: mask.numpy() for name, mask in self.data.groups.items()}, trace.mask)
        found = group_influence(groups.sums(trace.loss), None, groups, centering=Centering.pooled)
        return found["group_bif"][0], found["group_bif_se"][0], groups.names


def compare(demo: Demo, seed: int, step: int, sampler_seeds: int, truth_of: Truth) -> dict[str, Any]:
    """Compares estimates of several sampler seeds, and the control, with the truth at one checkpoint."""
    truth, truth_error, names = truth_of(step)
    found = [demo.estimate(step, replace(demo.sgld, seed=100 + item)) for item in range(sampler_seeds)]
    control = [demo.estimate(step, replace(demo.sgld, seed=100 + item, nbeta=0.0)) for item in range(CONTROLS)]
    values, errors = (np.array([item[name] for item in found]) for name in ("value", "error"))
    controls = np.array([item["value"] for item in control])
    factor = stdtrit(demo.sgld.num_chains - 1, 0.975)
    pairs = []
    for row, left in enumerate(names):
        for column in range(row, len(names)):
            at = (row, column)
            one = values[:, row, column]
            half = factor * np.hypot(errors[:, row, column], truth_error[at])
            pairs.append(
                {
                    "pair": f"{left}~{names[column]}",
                    "truth": truth[at],
                    "truth_error": truth_error[at],
                    "mean": one.mean(),
                    "mean_error": one.std(ddof=1) / np.sqrt(len(one)),
                    "spread": one.std(ddof=1) / abs(truth[at]),
                    "ratio": one.mean() / truth[at],
                    "control_ratio": controls[:, row, column].mean() / truth[at],
                    "told": bool(abs(truth[at]) > TOLD_FROM_ZERO * truth_error[at]),
                    "covered": float((abs(one - truth[at]) <= half).mean()),
                }
            )
    return {
        "seed": seed,
        "step": step,
        "pairs": pairs,
        "flags": [item["flags"] for item in found],
        "ess_per_draw": float(np.median([item["ess_per_draw"] for item in found])),
        "seconds": float(np.median([item["seconds"] for item in found])),
    }


def single_estimates(demo: Demo, step: int, repetitions: int, truth_of: Truth) -> list[dict[str, Any]]:
    """Returns bias, spread and error of single estimates of the first two groups with themselves, by settings."""
    truth, truth_error, names = truth_of(step)
    rows = []
    variants = {
        "demo": {},
        "the same at the cost of a probe as it was": EQUAL_COST,
        "probe as it was: Euler from w*, no burn-in": BEFORE,
    }
    for label, changes in variants.items():
        found = [
            demo.estimate(step, replace(demo.sgld, **changes, seed=200 + item))  # type: ignore[arg-type]
            for item in range(repetitions)
        ]
        row: dict[str, Any] = {"settings": label, "seconds": float(np.median([item["seconds"] for item in found]))}
        for group in range(2):
            values = np.array([item["value"][group, group] for item in found]) / truth[group, group]
            row[f"{names[group]}~{names[group]}"] = {
                "ratio": values.mean(),
                "spread": values.std(ddof=1),
                "rmse": float(np.sqrt(np.mean((values - 1) ** 2))),
                "truth_relative_error": abs(truth_error[group, group] / truth[group, group]),
            }
        rows.append(row)
    return rows


def summarise(checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the summary figures over all checkpoints."""
    told = [pair for checkpoint in checkpoints for pair in checkpoint["pairs"] if pair["told"]]
    ratios = np.array([pair["ratio"] for pair in told])
    flags = [flag for checkpoint in checkpoints for flag in checkpoint["flags"]]
    return {
        "pairs_told_from_zero": len(told),
        "pairs": sum(len(checkpoint["pairs"]) for checkpoint in checkpoints),
        "ratio_median": float(np.median(ratios)),
        "ratio_lowest": float(ratios.min()),
        "ratio_highest": float(ratios.max()),
        "within_.6_to_1.6": int(((ratios > 0.6) & (ratios < 1.6)).sum()),
        "signs_right": int((ratios > 0).sum()),
        "control_ratio_median": float(np.median([pair["control_ratio"] for pair in told])),
        "coverage_all_pairs": float(
            np.mean([pair["covered"] for checkpoint in checkpoints for pair in checkpoint["pairs"]])
        ),
        "coverage_of_groups_with_themselves": float(
            np.mean(
                [
                    p["covered"]
                    for checkpoint in checkpoints
                    for p in checkpoint["pairs"]
                    if len(set(p["pair"].split("~"))) == 1
                ]
            )
        ),
        "probes": len(flags),
        "probes_flagged": sum(flag != "" for flag in flags),
        "flags": sorted({name for flag in flags for name in flag.split(", ") if name}),
        "ess_per_draw_median": float(np.median([checkpoint["ess_per_draw"] for checkpoint in checkpoints])),
        "seconds_median": float(np.median([checkpoint["seconds"] for checkpoint in checkpoints])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--steps", type=int, nargs="+", default=[400, 500, 620])
    parser.add_argument("--sampler-seeds", type=int, default=8)
    parser.add_argument("--truth-draws", type=int, default=960, help="of all long chains together")
    parser.add_argument("--single-seed", type=int, default=1)
    parser.add_argument("--single-step", type=int, default=540)
    parser.add_argument("--repetitions", type=int, default=12)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--truth", type=Path, help="JSON of independent_truth.py, in place of long chains")
    parser.add_argument("--export", type=Path, help="only write the checkpoints for independent_truth.py")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = None if arguments.truth is None else json.loads(arguments.truth.read_text())

    def truth_of(demo: Demo, draws: int) -> Truth:
        if known is None:
            return lambda step: demo.truth(step, draws)
        return lambda step: demo.known_truth(step, known)

    if arguments.export is not None:
        arguments.export.mkdir(parents=True, exist_ok=True)
        steps = {seed: arguments.steps for seed in arguments.seeds} | {arguments.single_seed: [arguments.single_step]}
        for seed, those in steps.items():
            demo = Demo(seed, those, arguments.config)
            for step in those:
                demo.export(step, arguments.export / f"seed{seed}_step{step}.pt")
        return

    checkpoints = []
    for seed in arguments.seeds:
        demo = Demo(seed, arguments.steps, arguments.config)
        for step in arguments.steps:
            found = compare(demo, seed, step, arguments.sampler_seeds, truth_of(demo, arguments.truth_draws))
            checkpoints.append(found)
            for pair in found["pairs"]:
                print(
                    f"seed {seed} step {step} {pair['pair']}: truth {pair['truth']:.2e} +- {pair['truth_error']:.1e}, "
                    f"mean {pair['mean']:.2e} +- {pair['mean_error']:.1e}, ratio {pair['ratio']:.2f}"
                    f"{'' if pair['told'] else ' (unresolved)'}, control {pair['control_ratio']:.2f}, "
                    f"covered {pair['covered']:.2f}",
                    flush=True,
                )
    report: dict[str, Any] = {"checkpoints": checkpoints}
    if checkpoints:
        report |= {"summary": summarise(checkpoints), "settings": asdict(demo.sgld)}
        print(json.dumps(report["summary"], indent=2))
    if arguments.repetitions:
        demo = Demo(arguments.single_seed, [arguments.single_step], arguments.config)
        report["single"] = single_estimates(
            demo, arguments.single_step, arguments.repetitions, truth_of(demo, 2 * arguments.truth_draws)
        )
        for row in report["single"]:
            print(json.dumps(row))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
