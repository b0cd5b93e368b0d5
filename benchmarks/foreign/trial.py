"""One training of one case in this process, with probes or without: ``trial.py CASE FOLDER [--probes]``.

Writes ``final.pt`` (all that training ended with) into FOLDER, and with probes ``probes.json`` (what they found).
"""

import argparse
import copy
import importlib.util
import json
import os
import random
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from case import CASES, PROBE_EVERY, STEPS


def load_case(name: str) -> ModuleType:
    """Run a case file: its data and its glue; nothing is trained."""
    spec = importlib.util.spec_from_file_location(f"case_{name}", CASES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    case = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = case
    spec.loader.exec_module(case)
    return case


class Recorder(L.Callback):
    """Keeps the first batch as training sees it, and writes down how training ended.

    Everything goes to files at the end of training: some packages train with copies of their callbacks.
    """

    def __init__(self, case: ModuleType, folder: Path, *, probes: bool) -> None:
        self.case, self.folder, self.probes = case, folder, probes
        self.first_batch: Any = None
        self.losses: list[float] = []

    def __deepcopy__(self, memo: dict) -> "Recorder":
        return self

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note that training has begun: an error from here on is no refusal."""
        (self.folder / "started").touch()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the first batch, and the loss of each step."""
        if self.first_batch is None:
            # Not before the step: callbacks of a package may transform the batch in place.
            self.first_batch = copy.deepcopy(batch)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.losses.append(float(loss))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write everything that training ended with; then, with probes, the package's own loss."""
        if trainer.global_step != STEPS:
            raise RuntimeError(f"got {trainer.global_step} steps; expected {STEPS}: mend train() of the case")
        final = {
            "steps": trainer.global_step,
            "losses": self.losses,
            "weights": dict(pl_module.named_parameters(remove_duplicate=False)),
            "buffers": dict(pl_module.named_buffers(remove_duplicate=False)),
            "state_dict": dict(pl_module.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "torch random state": torch.get_rng_state(),
            "numpy random state": str(np.random.get_state()),  # noqa: NPY002
            "python random state": str(random.getstate()),
        }
        torch.save(_plain(final), self.folder / "final.pt")
        if self.probes:
            own = self._own_loss(pl_module)
            (self.folder / "own_loss.json").write_text(json.dumps(own))

    def _own_loss(self, module: Any) -> float:
        """The package's own loss of the observed samples, in eval mode, at the weights of the last probe."""
        module.eval()
        own = getattr(self.case, "own_loss", None)
        with torch.no_grad():
            # Steps of several packages log, which Lightning refuses here.
            vars(module).update(log=lambda *_, **__: None, log_dict=lambda *_, **__: None)
            answer = module.training_step(self.first_batch, 0) if own is None else own(module, self.first_batch)
        return float(answer["loss"] if isinstance(answer, dict) else answer)


def _plain(value: Any) -> Any:
    """Only what ``torch.load`` takes without running code; tensors as copies."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().as_subclass(torch.Tensor)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def probed(folder: Path) -> dict[str, Any]:
    """Returns facts on the probes of a run: steps, whether all numbers are finite, the loss at the last one."""
    from stagewise import open_run

    store = next(folder.rglob("influence.zarr"), None)
    if store is None:
        return {"probe_steps": []}
    run = open_run(store.parent)
    bif, last = run["bif"].values, run.isel(step=-1)
    own = float(json.loads((folder / "own_loss.json").read_text()))
    return {
        "probe_steps": [int(step) for step in run["step"].values],
        "observed": int(run.sizes["sample"]),
        "finite": bool(np.isfinite(bif).all()),
        "moves": bool((bif != 0).any()),
        "loss": float(last["anchor_loss"].where(last["mask"]).mean()),
        "own_loss": own,
    }


def run(name: str, folder: Path, *, probes: bool) -> None:
    """Train a case once; its files go into ``folder``, which becomes the working directory."""
    case = load_case(name)
    os.chdir(folder)
    callbacks: list[L.Callback] = [Recorder(case, folder, probes=probes)]
    if probes:
        from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule, SGLDConfig
        from stagewise.influence.stored_matrices import SampleMatrices

        sgld = SGLDConfig(
            lr=1e-6, nbeta=100.0, localization=1e4, num_chains=2, num_draws=4, num_burnin_steps=2, batch_size=8
        )
        # All parts, since all have to be finite.
        probe = ProbeConfig(sample_matrices=SampleMatrices.all)
        callbacks.append(InfluenceCallback(ProbeSchedule(every_n_steps=PROBE_EVERY), sgld, probe, **case.ARGUMENTS))
    L.seed_everything(7)
    case.train(callbacks)
    if probes:
        (folder / "probes.json").write_text(json.dumps(probed(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--probes", action="store_true")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    L.seed_everything(5)
    try:
        run(options.case, folder, probes=options.probes)
    except Exception as error:
        traceback.print_exc()
        told = {"type": type(error).__name__, "message": str(error), "started": (folder / "started").exists()}
        (folder / "error.json").write_text(json.dumps(told))
        sys.exit(1)


if __name__ == "__main__":
    main()
