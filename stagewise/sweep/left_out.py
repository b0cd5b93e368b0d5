"""Notes on files and folders that a sweep leaves out, and on listed checkpoints that are missing."""

from collections.abc import Iterable
from pathlib import Path

from stagewise.sweep.checkpoint_names import is_unfinished, shown
from stagewise.sweep.config import SweepConfig
from stagewise.sweep.find_checkpoints import name_rules
from stagewise.sweep.hub import HubCheckpoints
from stagewise.sweep.lens_checkpoints import LensCheckpoints, lens_files
from stagewise.sweep.sources import Checkpoints, FolderCheckpoints, LightningCheckpoints


def notes_on(source: Checkpoints, config: SweepConfig) -> list[str]:
    """Returns one line each on missing checkpoints and on files that are left out.

    Names excluded by ``step_pattern``, ``name_steps``, ``name_tokens`` or ``branch`` get no line.

    Args:
        source: of the checkpoints.
        config: of the sweep.
    """
    if isinstance(source, HubCheckpoints):
        notes = [source.note]
    elif isinstance(source, FolderCheckpoints):
        folders = [entry.name for entry in sorted(source.folder.iterdir()) if (entry / "config.json").is_file()]
        folders = [name for name in folders if not name.startswith(".")]
        unfinished = [name for name in folders if is_unfinished(name)]
        files = [*lens_files(source.folder).values(), *source.folder.glob("*.ckpt")]
        taken = set(source.places.values())
        beside = [path.name for path in sorted(files) if taken.isdisjoint((path, path.parent))]
        notes = [
            _without_step(source, config, set(folders) - set(unfinished)),
            f"left out {shown(unfinished)}, which the Trainer had not finished" if unfinished else "",
            f"left out {shown(beside)}, next to Hugging Face checkpoints" if beside else "",
        ]
    elif isinstance(source, LensCheckpoints):
        notes = [_without_step(source, config, source.files)]
    else:
        assert isinstance(source, LightningCheckpoints)
        notes = [_of_several_folders(source)]
    return [note for note in (*notes, _not_found(source, config)) if note]


def _without_step(source: Checkpoints, config: SweepConfig, names: Iterable[str]) -> str:
    rules = name_rules(config)
    if rules.pattern is not None or rules.listed is not None:
        return ""
    taken = {source.name_of(step).name for step in source.steps()}
    left = sorted(name for name in names if name not in taken and rules.read(name) is None)
    return f"left out {shown(left)}, whose names contain no training step" if left else ""


def _not_found(source: Checkpoints, config: SweepConfig) -> str:
    steps = source.steps()
    there = {source.name_of(step).name for step in steps}
    absent = [name for name in name_rules(config).listed or {} if name not in there]
    setting = "name_tokens" if config.name_steps is None else "name_steps"
    return f"no checkpoint {shown(absent)} of {setting}; going on with the {len(steps)} found" if absent else ""


def _of_several_folders(source: LightningCheckpoints) -> str:
    folders: list[Path] = sorted({path.parent for path in source.files.values()})
    if len(folders) < 2:
        return ""
    return f"files of {len(folders)} folders are taken as one run: {shown([str(path) for path in folders])}"
