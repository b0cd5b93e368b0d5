"""Compatibility of a resumed run with its checkpoint: settings that must agree, and changes that are recorded.

Settings that affect the values of a probe (data, loss, sampler, centring, reference ratio, component, learning
coefficient, baseline settings, an added baseline) must not change. Changes of the schedule, figures and thresholds, and
the removal of a baseline, are accepted, reported, and kept in ``summary.json`` (``changes``).
"""

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stagewise.errors import InputError
from stagewise.probes.config import ProbeConfig
from stagewise.probes.history import Record
from stagewise.probes.schedule import ProbeSchedule

_BASELINE = "baseline "
_OWN = ("stagewise.", "transformers.", "torch.")
_NOTED = (
    "gradient_dot",
    "damped_influence",
    "thresholds",
    "control_every",
    "min_prominence",
    "save_trace",
    "sample_matrices",
    "draw_matrices",
    "check_curvature",
)


def loss_identity(loss_fn: Any) -> str:
    """Returns the name of a loss function and a digest of its syntax tree, independent of comments and layout.

    Library functions are identified by their name, whatever the version. So are those without readable source. What a
    function calls, closes over or reads from its object is ignored.

    Args:
        loss_fn: function, method, partial or callable object.
    """
    while isinstance(loss_fn, functools.partial):
        loss_fn = loss_fn.func
    known = loss_fn if hasattr(loss_fn, "__qualname__") else type(loss_fn)
    module = getattr(known, "__module__", None) or ""
    name = f"{module}.{known.__qualname__}"
    if name.startswith(_OWN):
        return name
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(known)))
    except (OSError, TypeError, SyntaxError):
        return name
    return f"{name} {hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]}"


def baselines_of(probe: ProbeConfig) -> dict[str, str]:
    """Returns the enabled baselines of a run, for its fingerprint."""
    found = {}
    if probe.gradient_dot:
        found[f"{_BASELINE}gradient_dot"] = f"folds={probe.gradient_dot_folds}"
    if probe.damped_influence:
        found[f"{_BASELINE}damped_influence"] = "on"
    return found


def noted_settings(schedule: ProbeSchedule, probe: ProbeConfig) -> dict[str, str]:
    """Returns the settings that may change, as text by name."""
    return {"schedule": repr(schedule)} | {f"probe.{name}": repr(getattr(probe, name)) for name in _NOTED}


def note_changes(before: Mapping[str, str], now: Mapping[str, str], step: int) -> list[dict[str, Any]]:
    """Reports changes at a resume, for :attr:`stagewise.probes.history.Record.changes`.

    Args:
        before: :func:`noted_settings` in the checkpoint.
        now: of the run.
        step: at which it resumes.
    """
    changes: list[dict[str, Any]] = []
    for name, value in now.items():
        if name in before and before[name] != value:
            changes.append({"step": step, "setting": name, "before": before[name], "now": value})
            rank_zero_info(f"stagewise: from step {step} on {name} is {value}, no longer {before[name]}")
    return changes


def note_pause(record: Record, step: int) -> None:
    """Records steps that were trained with the callback disabled.

    Args:
        record: of the run, as it was before them.
        step: at which it resumes.
    """
    rank_zero_warn(
        f"stagewise: steps {record.last_step + 1} to {step} were trained with the callback disabled; probes resume "
        "without TracIn, which needs the learning rate of every step"
    )
    record.changes.append(
        {"step": step, "setting": "enabled", "before": f"False from {record.last_step}", "now": "True"}
    )
    record.last_step = step - 1


def check_unchanged(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuses to resume with other settings or data, since probes would not be comparable.

    Args:
        before: fingerprint in the checkpoint, see :meth:`stagewise.probes.prober.Prober.fingerprint`.
        now: fingerprint of the run.

    Raises:
        InputError: they differ.
    """
    for name in dict.fromkeys([*now, *before]):
        # The component only names the masks: two names may denote the same.
        if name == "component" or before.get(name) == now.get(name):
            continue
        # Checkpoints of older versions lack the loss. A baseline may be removed.
        if ("loss" not in before and (name == "loss" or name.startswith(_BASELINE))) or (
            name.startswith(_BASELINE) and name not in now
        ):
            continue
        what, was = f"{name} {now.get(name)}", f" ({before.get(name)})"
        if name == "masks":
            now_moves, moved = _moves(now), _moves(before)
            other = " of other entries" if now_moves == moved else ""  # the same name in another model
            what, was = f"component {now_moves}", f", {moved}{other}"
        elif name == "data":
            what, was = "other data", ""
        elif name == "loss":
            what, was = f"the loss {now.get(name)}", f", {before.get(name)}"
        raise InputError(
            f"got {what} for the probes of a resumed run; expected that of its checkpoint{was}; change it back, or "
            "start a new run"
        )


def _moves(fingerprint: Mapping[str, str]) -> str:
    """Describes the weights that the chains move."""
    return fingerprint.get("component", "without a name") if "masks" in fingerprint else "null (all weights)"
