"""Checkpoints that are revisions of a model on the Hugging Face hub."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from stagewise.errors import InputError, first_line
from stagewise.sweep.checkpoint_names import CheckpointName, NameRules, shown
from stagewise.sweep.sources import Limits, load_or_explain, pretrained, refuse_other_models


@dataclass(frozen=True)
class Listing:
    """Revisions of a model.

    Attributes:
        names: of branches and tags.
        fault: reason why the hub was not available, so that the names are those in the cache; else empty.
    """

    names: tuple[str, ...]
    fault: str = ""


def list_revisions(name: str, cache_dir: str | None = None) -> Listing:
    """Returns the revisions of a model: those on the hub, else those downloaded before.

    Args:
        name: of the model.
        cache_dir: folder for downloaded models; that of the Hugging Face libraries if None.
    """
    from huggingface_hub import HfApi, constants

    try:
        refs = HfApi().list_repo_refs(name)
        return Listing(tuple(dict.fromkeys(ref.name for ref in (*refs.branches, *refs.tags))))
    except Exception as error:  # the hub's, the network's and the client's kinds
        refs_folder = Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs"
        files = sorted(path for path in refs_folder.rglob("*") if path.is_file()) if refs_folder.is_dir() else []
        cached = tuple(path.relative_to(refs_folder).as_posix() for path in files)
        return Listing(cached, first_line(error))


@dataclass(frozen=True)
class HubCheckpoints:
    """Revisions of a model on the Hugging Face hub, with the step in each name.

    Attributes:
        name: of the model.
        revisions: training step to revision.
        cache_dir: folder for downloaded models; that of the Hugging Face libraries if None.
        note: one line on missing information; empty without any.
    """

    name: str
    revisions: dict[int, CheckpointName] = field(repr=False)
    cache_dir: str | None = None
    note: str = ""

    @classmethod
    def find(
        cls, name: str, rules: NameRules, asked: list[int] | None, cache_dir: str | None = None
    ) -> "HubCheckpoints":
        """Finds the checkpoints among the revisions of a model.

        If the hub is not available, revisions in the cache are used. For listed steps that are not among them the
        revision ``step<k>`` is assumed; loading it then reports the problem.

        Args:
            name: of the model.
            rules: rules for reading names.
            asked: listed steps; None if they are chosen among the existing ones.
            cache_dir: folder for downloaded models.

        Raises:
            InputError: no revision has a step in its name, or see :meth:`NameRules.place
                <stagewise.sweep.checkpoint_names.NameRules.place>`.
        """
        listing = list_revisions(name, cache_dir)
        found = rules.place(listing.names, f"{name!r} on the hub")
        if listing.fault and asked is not None:
            found = {**{step: CheckpointName(f"step{step}", step) for step in asked}, **found}
        if not found:
            there = f"whose revisions are {shown(listing.names)}" if listing.names else "with no revision that is known"
            why = f" (the hub cannot be asked: {listing.fault})" if listing.fault else ""
            raise InputError(
                f"got {name!r}, {there}{why}; expected some with a step in their names (step<k>, step-<k>, "
                "step<k>-tokens<n>B, stage1-step<k>-tokens<n>B, ...); check the name (no folder here has it) and the "
                "connection, or set step_pattern or name_steps"
            )
        note = ""
        if listing.fault:
            taken = "the revisions in the cache" if asked is not None else f"the {len(found)} revisions in the cache"
            note = f"the hub cannot be asked ({listing.fault}); going on with {taken}"
        return cls(name, found, cache_dir, note)

    def steps(self) -> list[int]:
        """Returns training steps of the revisions, increasing."""
        return sorted(self.revisions)

    def name_of(self, step: int) -> CheckpointName:
        """See :class:`~stagewise.sweep.sources.Checkpoints`."""
        return self.revisions[step]

    def _revision(self, step: int) -> str:
        return self.revisions[step].name if step in self.revisions else f"step{step}"

    def _place(self, step: int) -> tuple[str, str, str]:
        return (
            self.name,
            f"revision {self._revision(step)} of {self.name!r}",
            "expected a local folder, or a model on the Hugging Face hub with a revision for each step; check the "
            "name, --steps and the connection",
        )

    def identity(self, step: int) -> str:
        """Returns the revision, whose content does not change."""
        return f"{self.name} {self._revision(step)}"

    def _where(self, step: int) -> dict[str, Any]:
        return {"revision": self._revision(step), "cache_dir": self.cache_dir}

    def limits(self, step: int) -> Limits:
        """See :class:`~stagewise.sweep.sources.Checkpoints`."""
        from transformers import AutoConfig

        name, *words = self._place(step)
        config = load_or_explain(lambda: AutoConfig.from_pretrained(name, **self._where(step)), *words)
        refuse_other_models(config, words[0])
        return Limits.of(config)

    def load(self, step: int) -> nn.Module:
        """See :class:`~stagewise.sweep.sources.Checkpoints`."""
        return pretrained(*self._place(step), **self._where(step))

    def tokenizer(self) -> tuple[str, dict[str, Any]]:
        """Returns the tokenizer of the first revision."""
        return self.name, self._where(self.steps()[0])
