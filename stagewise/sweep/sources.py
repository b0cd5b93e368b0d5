"""Sources of checkpoints: a folder in Hugging Face's layout, or Lightning's files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from stagewise.errors import InputError, first_line
from stagewise.jobs.building import build_module
from stagewise.losses.language_models import causal_lm_name, is_causal_architecture
from stagewise.sweep.checkpoint_names import PLAIN, CheckpointName, NameRules, is_unfinished, shown
from stagewise.sweep.lightning_files import LightningFile, lightning_weights
from stagewise.sweep.step_names import file_identity

T = TypeVar("T")

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class Limits:
    """Limits of the inputs of a model, and its size, by which models of different checkpoints are told apart.

    Attributes:
        vocab_size: token ids lie below it.
        context: tokens in a sequence, at most; None where the model sets no limit.
        width: of the residual stream, and
        layers: of the model, where a configuration tells them.
    """

    vocab_size: int
    context: int | None
    width: int | None = None
    layers: int | None = None

    @classmethod
    def of(cls, config: Any) -> "Limits":
        """Reads the limits from a Hugging Face configuration."""
        text = config.get_text_config()
        names = ("max_position_embeddings", "hidden_size", "num_hidden_layers")
        return cls(text.vocab_size, *(getattr(text, name, None) for name in names))

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in vars(self).items() if value is not None)


class Checkpoints(Protocol):
    """Saved weights of one model along its training."""

    def steps(self) -> list[int]:
        """Returns training steps of the checkpoints, increasing."""
        ...

    def limits(self, step: int) -> Limits:
        """Returns the limits of the model's inputs, without loading its weights.

        Raises:
            InputError: unknown or unavailable checkpoint.
        """
        ...

    def load(self, step: int) -> nn.Module:
        """Returns the model at a step, float32, on the CPU.

        Raises:
            InputError: unknown checkpoint, or one that cannot be loaded completely.
        """
        ...

    def identity(self, step: int) -> str:
        """Returns an identity that changes when the weights at a step are replaced: names, sizes and times of files."""
        ...

    def tokenizer(self) -> tuple[str, dict[str, Any]] | None:
        """Returns the place of the model's own tokenizer, and arguments to load it; None if there is none."""
        ...

    def name_of(self, step: int) -> CheckpointName:
        """Returns the name of the checkpoint of a step, with its tokens if known."""
        ...


def load_or_explain(call: Callable[[], T], what: str, advice: str) -> T:
    """Loads something, and explains a failure in one line.

    Raises:
        InputError: with the first line of the error.
    """
    try:
        return call()
    except InputError:
        raise
    except Exception as error:  # transformers raises its own, the hub's, the network's and safetensors' kinds
        raise InputError(f"got {what}, which cannot be loaded ({first_line(error)}); {advice}") from error


def refuse_other_models(config: Any, what: str) -> None:
    """Refuses a checkpoint of another kind of model, which ``AutoModelForCausalLM`` would load nevertheless.

    Args:
        config: of the checkpoint.
        what: its description, for the message.

    Raises:
        InputError: it was saved from a masked or a sequence-to-sequence language model.
    """
    saved = getattr(config, "architectures", None) or []
    told_of = [is_causal_architecture(name) for name in saved]
    if False in told_of and True not in told_of:
        raise InputError(
            f"got {what} of a {', '.join(saved)}; expected a causal language model; a sweep knows no other loss"
        )


@contextmanager
def _without_bars() -> Iterator[None]:
    """Disables bars for the weights of checkpoints, which would drown the lines of progress; downloads keep theirs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def pretrained(place: str, what: str, advice: str, **settings: Any) -> nn.Module:
    """Returns the whole causal language model at a place, float32.

    Args:
        place: folder, or name on the hub.
        what: its description, for messages.
        advice: of messages.
        **settings: further arguments of ``from_pretrained``.

    Raises:
        InputError: it cannot be loaded, or lacks weights.
    """
    from transformers import AutoModelForCausalLM

    def load() -> tuple[nn.Module, dict[str, Any]]:
        # Saved in half precision by many; a chain's steps are far below what that resolves.
        return AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, output_loading_info=True, **settings)

    with _without_bars():
        model, found = load_or_explain(load, what, advice)
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputError(
            f"got {what}, which lacks {len(missing)} weights of a {type(model).__name__}, {missing[0]} among them; "
            "expected a whole causal language model; save it with save_pretrained"
        )
    return model


@dataclass(frozen=True)
class FolderCheckpoints:
    """Folder with one subfolder for each checkpoint, as ``save_pretrained`` writes it, its step in its name.

    Attributes:
        folder: that holds them.
        rules: by which names are read.

    Raises:
        InputError: as :meth:`NameRules.place <stagewise.sweep.checkpoint_names.NameRules.place>` does.
    """

    folder: Path
    rules: NameRules = PLAIN

    @cached_property
    def names(self) -> dict[int, CheckpointName]:
        """Training step to name of subfolder."""
        found = sorted(
            entry.name for entry in self.folder.iterdir() if entry.is_dir() and not is_unfinished(entry.name)
        )
        return self.rules.place(
            found, str(self.folder), any_number=lambda name: (self.folder / name / "config.json").is_file()
        )

    @property
    def places(self) -> dict[int, Path]:
        """Training step to subfolder."""
        return {step: self.folder / found.name for step, found in self.names.items()}

    def name_of(self, step: int) -> CheckpointName:
        """See :class:`Checkpoints`."""
        return self.names[step]

    def steps(self) -> list[int]:
        """Returns training steps of the subfolders, increasing."""
        return sorted(self.names)

    def _folder(self, step: int) -> Path:
        return self.places.get(step, self.folder / f"step{step}")

    def identity(self, step: int) -> str:
        """See :class:`Checkpoints`."""
        return file_identity(self._folder(step).iterdir())

    def _place(self, step: int) -> tuple[str, str, str]:
        path = str(self._folder(step))
        return path, f"checkpoint {path}", "expected what save_pretrained writes; save it again, or leave the step out"

    def _refuse_without_config(self, step: int) -> None:
        folder = self._folder(step)
        if folder.is_dir() and not (folder / "config.json").is_file():
            names = sorted(entry.name for entry in folder.iterdir())
            there = f"with {shown(names)}" if names else "an empty folder"
            raise InputError(
                f"got checkpoint {folder} without config.json, {there}; expected what save_pretrained writes; leave "
                "the step out, or convert it: weights of GPT-NeoX, Megatron and DeepSpeed by the scripts that come "
                "with them, adapters of PEFT by merge_and_unload"
            )

    def limits(self, step: int) -> Limits:
        """See :class:`Checkpoints`."""
        from transformers import AutoConfig

        self._refuse_without_config(step)
        path, *words = self._place(step)
        config = load_or_explain(lambda: AutoConfig.from_pretrained(path, local_files_only=True), *words)
        refuse_other_models(config, words[0])
        return Limits.of(config)

    def load(self, step: int) -> nn.Module:
        """See :class:`Checkpoints`."""
        return pretrained(*self._place(step), local_files_only=True)

    def tokenizer(self) -> tuple[str, dict[str, Any]] | None:
        """Returns the tokenizer in the folder itself, or of the first checkpoint that has one."""
        for place in (self.folder, *(self.places[step] for step in self.steps())):
            if any((place / name).is_file() for name in _TOKENIZER_FILES):
                return str(place), {"local_files_only": True}
        return None


@dataclass(frozen=True)
class LightningCheckpoints:
    """Files saved by Lightning, of a module that is described separately.

    Attributes:
        found: training step to file.
        model: ``class_path`` and ``init_args`` of the module.
    """

    found: dict[int, LightningFile]
    model: dict[str, Any] = field(repr=False)

    @property
    def files(self) -> dict[int, Path]:
        """Training step to file."""
        return {step: file.path for step, file in self.found.items()}

    def steps(self) -> list[int]:
        """Returns training steps of the files, increasing."""
        return sorted(self.found)

    def name_of(self, step: int) -> CheckpointName:
        """See :class:`Checkpoints`."""
        return self.found[step].name

    @cached_property
    def _limits(self) -> Limits:
        module = build_module(self.model)
        return Limits.of(module.get_submodule(causal_lm_name(module) or "").config)

    def limits(self, step: int) -> Limits:
        """See :class:`Checkpoints`; the same for all steps."""
        return self._limits

    def load(self, step: int) -> nn.Module:
        """See :class:`Checkpoints`."""
        module = build_module(self.model)
        state = lightning_weights(self.files[step])
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            words = " ".join(str(error).split())[:200]
            raise InputError(
                f"got checkpoint {self.files[step]}, whose weights are not those of model {self.model['class_path']} "
                f"({words}); expected the description that it was trained with; correct model.init_args"
            ) from error
        return module.float()

    def identity(self, step: int) -> str:
        """See :class:`Checkpoints`."""
        return file_identity([self.files[step]])

    def tokenizer(self) -> None:
        """Returns None: the files have no tokenizer."""
        return None
