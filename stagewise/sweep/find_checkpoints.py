"""Source of checkpoints from their name and the requested steps."""

from pathlib import Path

from stagewise.errors import InputError
from stagewise.sweep.config import SweepConfig
from stagewise.sweep.lightning_files import lightning_files
from stagewise.sweep.sources import (
    Checkpoints,
    FolderCheckpoints,
    HubCheckpoints,
    LightningCheckpoints,
    Limits,
)

_SHOWN = 12


def find_checkpoints(config: SweepConfig) -> Checkpoints:
    """Returns the checkpoints of a sweep.

    Args:
        config: of the sweep.

    Raises:
        InputError: there is no such place, no checkpoint in it, a hub name without steps, or ``.ckpt`` files without a
            model description.
    """
    given = config.checkpoints
    path = Path(given).expanduser()
    if not path.exists():
        if path.is_absolute() or given.startswith((".", "~")) or path.suffix == ".ckpt":
            raise InputError(
                f"got checkpoints {given!r}, a path that does not exist; expected a folder with subfolders such as "
                "step<k> or checkpoint-<k>, .ckpt files, or a name on the Hugging Face hub"
            )
        if config.steps is None:
            raise InputError(
                f"got checkpoints {given!r}, no path here and so a name on the Hugging Face hub, without steps; "
                'expected which of its revisions; e.g. --steps "[1,2,4,8]"'
            )
        return HubCheckpoints(given, tuple(config.steps), config.cache_dir)
    pattern = config.step_pattern
    if path.is_dir():
        folder = FolderCheckpoints(path, pattern)
        if folder.steps():
            return folder
    files = [path] if path.is_file() else list(path.rglob("*.ckpt"))
    if not files or (path.is_file() and path.suffix != ".ckpt"):
        raise InputError(_nothing(path, given, pattern))
    if config.model is None:
        raise InputError(
            f"got .ckpt files in {given!r} without a model description; expected model with class_path and init_args, "
            "as in configs/induction.yaml; give the configuration that they were trained with"
        )
    return LightningCheckpoints(lightning_files(files, pattern), config.model)


def _nothing(path: Path, given: str, pattern: str | None) -> str:
    """Explains in one line why nothing was found."""
    start = f"got checkpoints {given!r}, in which there is none"
    if path.is_file():
        return f"{start}: it is a {path.suffix or 'file'}; expected a folder, or a .ckpt file of Lightning"
    if (path / "config.json").is_file():
        return (
            f"{start}: it is a checkpoint itself; expected the folder above, with one subfolder for each step; name "
            f"{path.resolve().parent}"
        )
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    there = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    found = f", but {there}" if names else ", and nothing else"
    if pattern is not None:
        return f"{start} whose name is {pattern!r}{found}; expected some; correct step_pattern"
    return (
        f"{start}{found}; expected subfolders with their step in their names (step<k>, step_<k>, checkpoint-<k>, "
        "global_step<k>, iter_<k>, ...), each as save_pretrained writes it, or .ckpt files of Lightning; rename them, "
        r"or set step_pattern to a regular expression, e.g. 'model_e\d+_s(\d+)'"
    )


def chosen_steps(source: Checkpoints, asked: list[int] | None) -> list[int]:
    """Returns training steps of the sweep, increasing.

    Args:
        source: of the checkpoints.
        asked: requested steps; None for all.

    Raises:
        InputError: one of them is not there.
    """
    there = source.steps()
    missing = sorted(set(asked or ()) - set(there))
    if missing:
        shown = ", ".join(map(str, there[:_SHOWN])) + (", ..." if len(there) > _SHOWN else "")
        raise InputError(
            f"got steps {missing}, of which there is no checkpoint; expected some of {shown}; leave them out"
        )
    return there if asked is None else sorted(asked)


def check_limits(source: Checkpoints, steps: list[int]) -> Limits:
    """Checks that the limits of the model are the same at all checkpoints, and returns them.

    Args:
        source: of the checkpoints.
        steps: of the sweep.

    Raises:
        InputError: a checkpoint is not there, or is of another model than the first.
    """
    first = source.limits(steps[0])
    for step in steps[1:]:
        other = source.limits(step)
        if other != first:
            raise InputError(
                f"got checkpoints of different models: {other} at step {step}, {first} at step {steps[0]}; expected "
                "one model along its training; leave the others out with --steps"
            )
    return first
