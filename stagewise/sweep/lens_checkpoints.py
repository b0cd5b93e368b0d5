"""Checkpoints that are raw state dicts of TransformerLens."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stagewise.errors import InputError, first_line
from stagewise.sweep.checkpoint_names import PLAIN, CheckpointName, NameRules
from stagewise.sweep.lens_states import LENS_CONFIG, LensConfig, is_lens_state, lens_model
from stagewise.sweep.sources import Limits
from stagewise.sweep.step_names import file_identity

_ENDINGS = (".pth", ".pt")
_NESTED = ("state_dict", "model_state_dict", "model")


def read_lens_state(path: Path) -> dict[str, Tensor]:
    """Returns the state dict in a file, at its top or under ``state_dict``, ``model_state_dict`` or ``model``.

    Raises:
        InputError: it cannot be read, or has no TransformerLens model.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can break in any way
        raise InputError(
            f"got checkpoint {path}, which cannot be read ({first_line(error)}); expected a "
            "state dict; save it with torch.save(model.state_dict(), path)"
        ) from error
    inner = content if isinstance(content, Mapping) else {}
    for name in _NESTED:
        if isinstance(inner.get(name), Mapping) and is_lens_state(inner[name]):
            inner = inner[name]
    if not is_lens_state(inner) or not all(isinstance(value, Tensor) for value in inner.values()):
        keys = ", ".join(map(str, list(inner)[:4])) or type(content).__name__
        raise InputError(
            f"got checkpoint {path} with {keys}; expected the state dict of a TransformerLens model (embed.W_E, "
            "blocks.0.attn.W_Q, ...); save others with save_pretrained, in a folder for each step"
        )
    return dict(inner)


def lens_files(folder: Path) -> dict[str, Path]:
    """Returns files of TransformerLens by the name with their step: their own, or that of their folder.

    Args:
        folder: with files ``<name>.pth`` (``.pt``), or with subfolders that have one each and no Hugging Face weights.
    """
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in _ENDINGS and path.is_file()}
    for place in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        files = [path for path in place.iterdir() if path.suffix in _ENDINGS]
        others = [*place.glob("*.safetensors"), *place.glob("pytorch_model*.bin")]
        if len(files) == 1 and not others:
            found.setdefault(place.name, files[0])
    return found


@dataclass(frozen=True)
class LensCheckpoints:
    """State dicts of TransformerLens, a file for each checkpoint, with ``config.json`` next to them or above.

    Attributes:
        folder: with the files.
        rules: rules for reading names.
    """

    folder: Path
    rules: NameRules = PLAIN

    @cached_property
    def files(self) -> dict[str, Path]:
        """Possible checkpoints, name to file."""
        return lens_files(self.folder)

    @cached_property
    def names(self) -> dict[int, CheckpointName]:
        """Training step to name."""
        return self.rules.place(self.files, str(self.folder), any_number=lambda _: True)

    def steps(self) -> list[int]:
        """Returns training steps of the files, increasing."""
        return sorted(self.names)

    def name_of(self, step: int) -> CheckpointName:
        """See :class:`~stagewise.sweep.sources.Checkpoints`."""
        return self.names[step]

    def _file(self, step: int) -> Path:
        return self.files[self.names[step].name]

    def _config(self, step: int) -> Path:
        beside = self._file(step).parent / LENS_CONFIG
        return beside if beside.is_file() else self.folder / LENS_CONFIG

    def limits(self, step: int) -> Limits:
        """See :class:`~stagewise.sweep.sources.Checkpoints`; reads the file."""
        state, config = read_lens_state(self._file(step)), LensConfig.read(self._config(step))
        positions = state.get("pos_embed.W_pos")
        return Limits(len(state["embed.W_E"]), config.n_ctx if positions is None else len(positions))

    def load(self, step: int) -> nn.Module:
        """See :class:`~stagewise.sweep.sources.Checkpoints`."""
        path = self._file(step)
        with torch.random.fork_rng(devices=[]):
            return lens_model(read_lens_state(path), LensConfig.read(self._config(step)), f"checkpoint {path}")

    def identity(self, step: int) -> str:
        """See :class:`~stagewise.sweep.sources.Checkpoints`."""
        return file_identity([self._file(step), *(path for path in [self._config(step)] if path.is_file())])

    def tokenizer(self) -> tuple[str, dict[str, Any]] | None:
        """Returns the tokenizer in the folder itself, if any."""
        if (self.folder / "tokenizer.json").is_file():
            return str(self.folder), {"local_files_only": True}
        return None
