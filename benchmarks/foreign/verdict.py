"""Holds two trainings of a case against each other: ``verdict.py PLAIN PROBED [--bits]`` prints a JSON object.

With ``--bits`` only where the two differ, ``where``, or null: for two plain trainings.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from case import PROBE_EVERY, STEPS

TOLERANCE = 1e-4
"""Relative: two ways to add up the same float32 losses."""


def difference(plain: Any, probed: Any, path: str = "") -> str | None:
    """Where two nests of tensors and numbers first differ by a bit, a type or a key; None if nowhere."""
    if type(plain) is not type(probed):
        return path
    if isinstance(plain, torch.Tensor):
        same = plain.dtype == probed.dtype and plain.shape == probed.shape
        return None if same and _bits(plain) == _bits(probed) else path
    if isinstance(plain, (dict, list)):
        pairs = plain.items() if isinstance(plain, dict) else enumerate(plain)
        if len(plain) != len(probed):
            return path
        for key, value in pairs:
            if isinstance(plain, dict) and key not in probed:
                return f"{path}/{key}"
            found = difference(value, probed[key], f"{path}/{key}")
            if found is not None:
                return found
        return None
    return None if repr(plain) == repr(probed) else path


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def verdict(plain: Path, probed: Path) -> dict[str, Any]:
    """``verdict`` (attaches, refused, fails, changes training, other loss), ``message`` and what was measured."""
    if not (plain / "final.pt").exists():
        return {"verdict": "not run", "message": f"the package's own training ended in {_error(plain)}"}
    error = probed / "error.json"
    if error.exists():
        told = json.loads(error.read_text())
        ours = told["type"] in ("InputError", "LossContractError")
        refused = ours and not told["started"]
        return {"verdict": "refused" if refused else "fails", "message": _error(probed)}
    if not (probed / "probes.json").exists():
        return {"verdict": "fails", "message": "the process ended without a word"}
    found = json.loads((probed / "probes.json").read_text())
    where = difference(torch.load(plain / "final.pt"), torch.load(probed / "final.pt"))
    found["identical"] = where is None
    if where is not None:
        return {"verdict": "changes training", "message": f"first difference: {where}"} | found
    due = list(range(PROBE_EVERY, STEPS + 1, PROBE_EVERY))
    if found["probe_steps"] != due:
        return {"verdict": "fails", "message": f"probes at {found['probe_steps']}; due at {due}"} | found
    if not (found["finite"] and found["moves"]):
        return {"verdict": "fails", "message": "influence is not finite, or zero throughout"} | found
    if not abs(found["loss"] - found["own_loss"]) <= TOLERANCE * max(abs(found["own_loss"]), TOLERANCE):
        told = f"the probe sees {found['loss']:.6g}, the package's own loss is {found['own_loss']:.6g}"
        return {"verdict": "other loss", "message": told} | found
    return {"verdict": "attaches", "message": ""} | found


def _error(folder: Path) -> str:
    error = folder / "error.json"
    if not error.exists():
        return "no word"
    told = json.loads(error.read_text())
    return f"{told['type']}: {told['message']}"


if __name__ == "__main__":
    one, other = Path(sys.argv[1]), Path(sys.argv[2])
    if "--bits" in sys.argv:
        print(json.dumps({"where": difference(torch.load(one / "final.pt"), torch.load(other / "final.pt"))}))
    else:
        print(json.dumps(verdict(one, other)))
