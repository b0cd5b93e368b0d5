"""Comparison of the head that induction data move most, from chains restricted to single heads, with head scores.

    python benchmarks/heads.py --seeds 21 22 23 24 25 --json benchmarks/results/heads.json

Trains `configs/induction.yaml` once per seed, keeps weights every few steps, and then probes them with chains that move
a single head, with the sampler settings of the configuration. For each seed it prints the heads with the best
prefix-matching and previous-token scores at the end. It also prints the head through which the induction class
influences itself most (within part, mean over the first probes with a prefix-matching score above .25), with the margin
to the next head in standard errors.
"""

import argparse
import json
import logging
import time
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
import xarray as xr
import yaml

from stagewise import InductionCallback, ProbeConfig, Prober, SGLDConfig
from stagewise.lm.components import component_masks, components
from stagewise.lm.data import SyntheticData
from stagewise.lm.module import CausalLM
from stagewise.losses.contract import resolve_loss
from stagewise.runs.components import component_table, leading_component


class Keeper(pl.Callback):
    """Callback that keeps weights and scores every few steps, and ends the run some steps after a score above .5."""

    def __init__(self, scores: InductionCallback, every: int, settle: int) -> None:
        self.scores, self.every, self.settle = scores, every, settle
        self.weights: dict[int, dict[str, torch.Tensor]] = {}
        self.prefix: dict[int, float] = {}
        self.formed: int | None = None

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        """Keeps weights and scores if due."""
        step = trainer.global_step
        if step % self.every:
            return
        self.prefix[step] = float(self.scores.tables["prefix_matching"].max())
        self.weights[step] = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        if self.formed is None and self.prefix[step] > 0.5:
            self.formed = step
        trainer.should_stop = self.formed is not None and step >= self.formed + self.settle


def name_of(table: torch.Tensor) -> str:
    layer, head = divmod(int(table.argmax()), table.shape[1])
    return f"layer{layer}.head{head}"


def measure(config: dict, seed: int, *, every: int, settle: int, probes: int, chains: int) -> dict:
    torch.manual_seed(seed)
    module = CausalLM(**config["model"]["init_args"])
    data = SyntheticData(**{**config["data"]["init_args"], "seed": seed})
    scores = InductionCallback(every_n_steps=every)
    keeper = Keeper(scores, every, settle)
    trainer = pl.Trainer(
        max_steps=config["trainer"]["max_steps"],
        gradient_clip_val=config["trainer"]["gradient_clip_val"],
        callbacks=[scores, keeper],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    if keeper.formed is None:
        return {"seed": seed, "formed": None}
    steps = [step for step, score in keeper.prefix.items() if score > 0.25][:probes]
    sgld = SGLDConfig(**{**config["influence"]["sgld"], "seed": seed, "num_chains": chains})
    probe_config = ProbeConfig(save_trace=False, check_curvature=False)
    runs: dict[str, xr.Dataset] = {}
    module.eval()
    for part in components(module, "heads"):
        masks = component_masks(module, part)
        prober = Prober(module, resolve_loss(module), data.probe_data(), sgld=sgld, config=probe_config, masks=masks)
        found: list[xr.Dataset] = []
        for step in steps:
            module.load_state_dict(keeper.weights[step])
            probe, _ = prober.probe(module, step)
            assert probe is not None, f"{part} lost all its chains at step {step}"
            kept = probe[["group_bif", "group_bif_se", "chains_dropped"]].expand_dims(step=[step])
            found.append(kept.assign_attrs(probe.attrs))
        runs[part] = xr.concat(found, "step", combine_attrs="override")
        runs[part].attrs = found[-1].attrs
    table = component_table(runs)
    leader = leading_component(table, "induction")
    means = table["group_bif"].sel(group="induction", group_j="induction").mean("step")
    return {
        "seed": seed,
        "formed": keeper.formed,
        "steps": steps,
        "by_prefix_matching": name_of(scores.tables["prefix_matching"]),
        "prefix_matching": scores.tables["prefix_matching"].tolist(),
        "by_previous_token": name_of(scores.tables["previous_token"]),
        "previous_token": scores.tables["previous_token"].tolist(),
        "by_influence": leader.component,
        "margin_in_errors": leader.margin / leader.margin_error,
        "influence": {
            str(name): float(value) for name, value in zip(means["component"].values, means.values, strict=True)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/induction.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--every", type=int, default=20, help="steps between scores, and between probes")
    parser.add_argument("--settle", type=int, default=60, help="training steps after a score above .5")
    parser.add_argument("--probes", type=int, default=3, help="largest number of probes per head")
    parser.add_argument(
        "--chains", type=int, default=16, help="per probe; with few chains heads cannot be distinguished"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    config = yaml.safe_load(arguments.config.read_text())
    rows = []
    for seed in arguments.seeds:
        start = time.perf_counter()
        row = measure(
            config,
            seed,
            every=arguments.every,
            settle=arguments.settle,
            probes=arguments.probes,
            chains=arguments.chains,
        )
        rows.append(row)
        if row["formed"] is None:
            print(f"seed {seed}: no head formed", flush=True)
            continue
        shares = ", ".join(f"{name} {value:+.2e}" for name, value in row["influence"].items())
        print(
            f"seed {seed}: head at step {row['formed']}; prefix matching {row['by_prefix_matching']}, previous token "
            f"{row['by_previous_token']}, induction influence by {row['by_influence']} (margin "
            f"{row['margin_in_errors']:.1f} errors); nats^2: {shares}; {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    known = [row for row in rows if row["formed"] is not None]
    same = sum(row["by_influence"] == row["by_prefix_matching"] for row in known)
    print(f"influence names the head of the prefix-matching score in {same} of {len(known)} seeds")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
