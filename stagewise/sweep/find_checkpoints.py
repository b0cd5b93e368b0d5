"""Source of checkpoints from their name and the requested steps."""

from itertools import pairwise
from pathlib import Path

from stagewise.errors import InputError
from stagewise.sweep.checkpoint_names import NameRules, is_numbered, shown
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
    path = _expanded(given)
    if not path.exists():
        if given.startswith((".", "~")) or path.suffix == ".ckpt" or not _may_be_of_the_hub(given):
            raise InputError(
                f"got checkpoints {given!r}, a path that does not exist; expected a folder with subfolders such as "
                "step<k> or checkpoint-<k>, .ckpt files, or a name on the Hugging Face hub (owner/model)"
            )
        if config.steps is None:
            raise InputError(
                f"got checkpoints {given!r}, no path here and so a name on the Hugging Face hub, without steps; "
                "expected a folder that exists, or which revisions of the name; e.g. --steps log:24, all, or "
                '"[1,2,4,8]"'
            )
        asked = config.steps if isinstance(config.steps, list) else None
        return HubCheckpoints.find(given, name_rules(config), asked, config.cache_dir)
    if path.is_dir():
        lens = LensCheckpoints(path, name_rules(config))
        folder = FolderCheckpoints(path, name_rules(config))
        if lens.steps() and {found.name for found in folder.names.values()} <= set(lens.files):
            return lens
        if folder.steps():
            return folder
    files = [path] if path.is_file() else _ckpt_files(path)
    if not files or (path.is_file() and path.suffix != ".ckpt"):
        raise InputError(_nothing(path, config))
    if config.model is None:
        raise InputError(
            f"got .ckpt files in {given!r} without a model description; expected model with class_path and init_args, "
            "as in configs/induction.yaml; give the configuration that they were trained with"
        )
    found = lightning_files(files, name_rules(config), given)
    if not found:  # none of those that are listed
        raise InputError(_nothing(path, config))
    return LightningCheckpoints(found, config.model)


def _expanded(given: str) -> Path:
    """Returns the path with the home folder in place of ``~``; as it is where there is no such user."""
    try:
        return Path(given).expanduser()
    except RuntimeError:
        return Path(given)


def _may_be_of_the_hub(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _ckpt_files(folder: Path) -> list[Path]:
    """Returns Lightning's files in a folder, at any depth; also behind links to folders that lie in it."""
    linked = [entry for entry in sorted(folder.iterdir()) if entry.is_symlink() and entry.is_dir()]
    return sorted({file for place in (folder, *linked) for file in place.rglob("*.ckpt")})


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
    if path.suffix == ".ckpt":
        return (
            f"{start}: it is a folder of shards; expected one file; put them together with python -m "
            "lightning.pytorch.utilities.consolidate_checkpoint, or with zero_to_fp32.py where DeepSpeed wrote it"
        )
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    there = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    found = f", but {there}" if names else ": it is an empty folder"
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


def check_axis(source: Checkpoints, steps: list[int], config: SweepConfig) -> None:
    """Refuses an axis of steps where names only count checkpoints, and one of tokens where these are not known or fall.

    Equal counts pass: names round them, e.g. to billions.

    Args:
        source: of the checkpoints.
        steps: of the sweep, increasing.
        config: of the sweep.

    Raises:
        InputError: as said.
    """
    known = [source.name_of(step) for step in steps]
    if config.axis is not Axis.tokens:
        inside = isinstance(source, LightningCheckpoints)  # such files know their step
        counted = [] if inside else [one.name for one in known if is_numbered(one.name)]
        if counted and config.name_tokens is not None and config.name_steps is None and config.step_pattern is None:
            raise InputError(
                f"got axis=steps and checkpoints {shown(counted)}, which are numbered, without a training step; "
                "expected the steps in name_steps, or --axis tokens"
            )
        return
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
