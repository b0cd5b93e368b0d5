"""Source of checkpoints from their name and the requested steps."""

from itertools import pairwise
from pathlib import Path

from stagewise.errors import InputError
from stagewise.sweep.checkpoint_names import NameRules, shown
from stagewise.sweep.config import Axis, SweepConfig
from stagewise.sweep.hub import HubCheckpoints
from stagewise.sweep.lens_checkpoints import LensCheckpoints
from stagewise.sweep.lightning_files import lightning_files
from stagewise.sweep.sources import Checkpoints, FolderCheckpoints, LightningCheckpoints, Limits

_SHOWN = 12


def find_checkpoints(config: SweepConfig) -> Checkpoints:
    """Returns the checkpoints of a sweep.

    Args:
        config: of the sweep.

    Raises:
        InputError: unknown place, no checkpoint in it, a hub name without steps, several branches without a choice,
            checkpoints that are only numbered, or ``.ckpt`` files without a model description.
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
                'expected which of its revisions; e.g. --steps log:24, all, or "[1,2,4,8]"'
            )
        asked = config.steps if isinstance(config.steps, list) else None
        return HubCheckpoints.find(given, name_rules(config), asked, config.cache_dir)
    pattern = config.step_pattern
    if path.is_dir():
        lens = LensCheckpoints(path, name_rules(config))
        folder = FolderCheckpoints(path, name_rules(config))
        if lens.steps() and {found.name for found in folder.names.values()} <= set(lens.files):
            return lens
        if folder.steps():
            return folder
    files = [path] if path.is_file() else list(path.rglob("*.ckpt"))
    if not files or (path.is_file() and path.suffix != ".ckpt"):
        raise InputError(_nothing(path, config))
    if config.model is None:
        raise InputError(
            f"got .ckpt files in {given!r} without a model description; expected model with class_path and init_args, "
            "as in configs/induction.yaml; give the configuration that they were trained with"
        )
    return LightningCheckpoints(lightning_files(files, pattern), config.model, config.tokens_per_step)


def name_rules(config: SweepConfig) -> NameRules:
    """Returns the settings of a sweep for reading names of checkpoints."""
    return NameRules(config.step_pattern, config.branch, config.name_steps, config.name_tokens, config.tokens_per_step)


def _nothing(path: Path, config: SweepConfig) -> str:
    """Explains in one line why nothing was found."""
    pattern = config.step_pattern
    start = f"got checkpoints {config.checkpoints!r}, in which there is none"
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
    if config.name_steps is not None or config.name_tokens is not None:
        return f"{start} of those in name_steps or name_tokens{found}; expected some; correct the names"
    if pattern is not None:
        return f"{start} whose name is {pattern!r}{found}; expected some; correct step_pattern"
    return (
        f"{start}{found}; expected subfolders with their step in their names (step<k>, step_<k>, step<k>-tokens<n>B, "
        "checkpoint-<k>, global_step<k>, iter_<k>, ...), each as save_pretrained writes it, state dicts of "
        "TransformerLens (.pth), or .ckpt files of Lightning; rename them, or set step_pattern to a regular "
        r"expression, e.g. 'model_e\d+_s(\d+)'"
    )


def check_limits(source: Checkpoints, steps: list[int]) -> Limits:
    """Checks that the limits of the model are the same at all checkpoints, and returns them.

    Args:
        source: of the checkpoints.
        steps: of the sweep.

    Raises:
        InputError: a missing checkpoint, or one of another model than the first.
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


def check_tokens(source: Checkpoints, steps: list[int], axis: Axis) -> None:
    """Refuses an axis of tokens where these are not known, or fall from one step to the next.

    Equal counts pass: names round them, e.g. to billions.

    Args:
        source: of the checkpoints.
        steps: of the sweep, increasing.
        axis: of its figures.

    Raises:
        InputError: as said.
    """
    if axis is not Axis.tokens:
        return
    known = [source.name_of(step) for step in steps]
    without = [one.name for one in known if one.tokens is None]
    if without:
        raise InputError(
            f"got axis=tokens and checkpoints {shown(without)}, whose tokens are not known; expected those of each; "
            "give tokens_per_step, or name_tokens"
        )
    for one, after in pairwise(known):
        if (after.tokens or 0) < (one.tokens or 0):
            raise InputError(
                f"got checkpoint {after.name} of {after.tokens:,} tokens after {one.name} of {one.tokens:,}; expected "
                "tokens that do not fall; correct name_tokens or name_steps"
            )
