"""Sources of checkpoints: a folder or the hub in Hugging Face's layout, or Lightning's files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.jobs.building import build_module
from stagewise.losses.language_models import causal_lm_name, is_causal_architecture
from stagewise.sweep.lightning_files import lightning_weights
from stagewise.sweep.step_names import file_identity, step_of

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
    """Limits of the inputs of a model.

    Attributes:
        vocab_size: token ids lie below it.
        context: tokens in a sequence, at most; None where the model sets no limit.
    """

    vocab_size: int
    context: int | None

    @classmethod
    def of(cls, config: Any) -> "Limits":
        """Of a Hugging Face configuration."""
        text = config.get_text_config()
        return cls(text.vocab_size, getattr(text, "max_position_embeddings", None))


class Checkpoints(Protocol):
    """Saved weights of one model along its training."""

    def steps(self) -> list[int]:
        """Returns training steps of the checkpoints, increasing."""
        ...

    def limits(self, step: int) -> Limits:
        """Returns the limits of the model's inputs, without loading its weights.

        Raises:
            InputError: there is no such checkpoint, or it cannot be had.
        """
        ...

    def load(self, step: int) -> nn.Module:
        """Returns the model at a step, float32, on the CPU.

        Raises:
            InputError: there is no such checkpoint, or it cannot be loaded whole.
        """
        ...

    def identity(self, step: int) -> str:
        """Returns an identity that changes when the weights at a step are replaced: names, sizes and times of files."""
        ...

    def tokenizer(self) -> tuple[str, dict[str, Any]] | None:
        """Returns the place of the model's own tokenizer, and arguments to load it; None where there is none."""
        ...


def told(call: Callable[[], T], what: str, advice: str) -> T:
    """Loads, and says in one line what could not be loaded.

    Raises:
        InputError: with the first line of what went wrong.
    """
    try:
        return call()
    except InputError:
        raise
    except Exception as error:  # transformers raises its own, the hub's, the network's and safetensors' kinds
        words = str(error).strip().splitlines()
        raise InputError(
            f"got {what}, which cannot be loaded ({words[0] if words else type(error).__name__}); {advice}"
        ) from error


def refuse_other_models(config: Any, what: str) -> None:
    """Refuses a checkpoint that ``AutoModelForCausalLM`` would load though it is of another kind of model.

    Args:
        config: of the checkpoint.
        what: it is, for the message.

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
    """No bar for the weights of each checkpoint: they would drown the lines of progress. Downloads have others."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _pretrained(place: str, what: str, advice: str, **settings: Any) -> nn.Module:
    from transformers import AutoModelForCausalLM

    def load() -> tuple[nn.Module, dict[str, Any]]:
        # Saved in half precision by many; a chain's steps are far below what that resolves.
        return AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, output_loading_info=True, **settings)

    with _without_bars():
        model, found = told(load, what, advice)
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
        pattern: regular expression whose group is the step in a name; None for the rule of
            :func:`~stagewise.sweep.step_names.step_of`.

    Raises:
        InputError: two subfolders of one step.
    """

    folder: Path
    pattern: str | None = None

    @cached_property
    def places(self) -> dict[int, Path]:
        """Training step to subfolder."""
        found: dict[int, Path] = {}
        for path in sorted(entry for entry in self.folder.iterdir() if entry.is_dir()):
            sure = (path / "config.json").is_file()
            step = step_of(path.name, self.pattern, any_number=sure)
            if step is None:
                continue
            if step in found:
                raise InputError(
                    f"got two checkpoints of step {step}, {found[step].name} and {path.name} in {self.folder}; "
                    "expected one run; set step_pattern to a regular expression for names of that one, e.g. "
                    "'checkpoint-(\\d+)'"
                )
            found[step] = path
        return found

    def steps(self) -> list[int]:
        """Returns training steps of the subfolders, increasing."""
        return sorted(self.places)

    def _folder(self, step: int) -> Path:
        return self.places.get(step, self.folder / f"step{step}")

    def identity(self, step: int) -> str:
        """See :class:`Checkpoints`."""
        return file_identity(self._folder(step).iterdir())

    def _place(self, step: int) -> tuple[str, str, str]:
        path = str(self._folder(step))
        return path, f"checkpoint {path}", "expected what save_pretrained writes; save it again, or leave the step out"

    def limits(self, step: int) -> Limits:
        """See :class:`Checkpoints`."""
        from transformers import AutoConfig

        path, *words = self._place(step)
        config = told(lambda: AutoConfig.from_pretrained(path, local_files_only=True), *words)
        refuse_other_models(config, words[0])
        return Limits.of(config)

    def load(self, step: int) -> nn.Module:
        """See :class:`Checkpoints`."""
        return _pretrained(*self._place(step), local_files_only=True)

    def tokenizer(self) -> tuple[str, dict[str, Any]] | None:
        """In the folder itself, or beside the weights of the first checkpoint that has one."""
        for place in (self.folder, *(self.places[step] for step in self.steps())):
            if any((place / name).is_file() for name in _TOKENIZER_FILES):
                return str(place), {"local_files_only": True}
        return None


@dataclass(frozen=True)
class HubCheckpoints:
    """Revisions ``step<k>`` of a model on the Hugging Face hub.

    Attributes:
        name: of the model.
        chosen: training steps.
        cache_dir: where models are downloaded to; that of the Hugging Face libraries if None.
    """

    name: str
    chosen: tuple[int, ...]
    cache_dir: str | None = None

    def steps(self) -> list[int]:
        """Those that were chosen: what else there is, only the hub knows."""
        return sorted(self.chosen)

    def _place(self, step: int) -> tuple[str, str, str]:
        return (
            self.name,
            f"revision step{step} of {self.name!r}",
            "expected a local folder, or a model on the Hugging Face hub with a revision for each step; check the "
            "name, --steps and the connection",
        )

    def identity(self, step: int) -> str:
        """Returns the revision: what it stands for does not change."""
        return f"{self.name} step{step}"

    def _where(self, step: int) -> dict[str, Any]:
        return {"revision": f"step{step}", "cache_dir": self.cache_dir}

    def limits(self, step: int) -> Limits:
        """See :class:`Checkpoints`."""
        from transformers import AutoConfig

        name, *words = self._place(step)
        config = told(lambda: AutoConfig.from_pretrained(name, **self._where(step)), *words)
        refuse_other_models(config, words[0])
        return Limits.of(config)

    def load(self, step: int) -> nn.Module:
        """See :class:`Checkpoints`."""
        return _pretrained(*self._place(step), **self._where(step))

    def tokenizer(self) -> tuple[str, dict[str, Any]]:
        """Returns the tokenizer of the first revision."""
        return self.name, self._where(self.steps()[0])


@dataclass(frozen=True)
class LightningCheckpoints:
    """Files that Lightning saved, of a module that is described apart from them.

    Attributes:
        files: training step to file.
        model: ``class_path`` and ``init_args`` of the module.
    """

    files: dict[int, Path]
    model: dict[str, Any] = field(repr=False)

    def steps(self) -> list[int]:
        """Returns training steps of the files, increasing."""
        return sorted(self.files)

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
        """Not in the file."""
        return None
