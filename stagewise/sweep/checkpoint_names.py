"""Names of checkpoints in public suites: the step, the tokens and the branch of training in each."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from stagewise.errors import InputError
from stagewise.sweep.step_names import step_of

MAIN = "main"
"""Name of the branch of checkpoints without one in their names."""

_BRANCH = re.compile(r"(?<![a-z0-9])(?:(?:stage|phase|ingredient)[-_]?\d+|lc-\d+k-to-\d+k)(?![a-z0-9])", re.IGNORECASE)
_TOKENS = (
    re.compile(r"(?<![a-z])tokens?[-_ ]?(\d+(?:\.\d+)?)([KMBT])(?![a-z0-9])", re.IGNORECASE),
    re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([KMBT])T(?![a-z0-9])", re.IGNORECASE),
)
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_NUMBERED = re.compile(
    r"(?:.*[^a-z])?(?:(?:checkpoint|ckpt|chkpt|cp)[-_]?0\d{1,3}|ep(?:och)?s?[-_= ]?\d+)", re.IGNORECASE
)
"""Epochs, or a few digits behind a zero: LLM360's ``ckpt_000`` counts checkpoints. Steps with leading zeros have more
digits."""

MOST_SHOWN = 6
"""Names in a message."""


@dataclass(frozen=True)
class CheckpointName:
    """Name of a checkpoint and what is known of its place in training.

    Attributes:
        name: of a folder, a file without its ending, or a revision.
        step: training step, counted from the start of its branch where the suite does so.
        tokens: tokens trained on so far; None if unknown.
        branch: stage and ingredient in the name (``stage2-ingredient1``), :data:`MAIN` without one.
    """

    name: str
    step: int
    tokens: int | None = None
    branch: str = MAIN


@dataclass(frozen=True)
class NameRules:
    """Settings by which names of checkpoints are read, see :class:`~stagewise.sweep.config.SweepConfig`.

    Attributes:
        pattern: regular expression whose group is the step.
        branch: taken; joined by ``+`` where one follows another.
        steps: name to training step; only these checkpoints are taken.
        tokens: name to tokens; only these checkpoints are taken.
        tokens_per_step: tokens of a training step.
    """

    pattern: str | None = None
    branch: str | None = None
    steps: Mapping[str, int] | None = None
    tokens: Mapping[str, float] | None = None
    tokens_per_step: float | None = None

    def place(
        self, names: Iterable[str], where: str, *, any_number: Callable[[str], bool] = lambda _: False
    ) -> dict[int, CheckpointName]:
        """Returns the checkpoints among names by their training step, increasing; other names are passed over.

        Args:
            names: of folders, files or revisions.
            where: place of the checkpoints, for messages.
            any_number: tells of a name whether a lone number in it is a step.

        Raises:
            InputError: two checkpoints of one step, checkpoints that are only numbered, or several branches without a
                choice.
        """
        given = list(dict.fromkeys(names))
        read = [found for name in given if (found := self.read(name)) is not None]
        if not read:  # where some say "step", the lone number of another is an epoch, or a part of a model's name
            read = [found for name in given if (found := self.read(name, any_number=any_number(name))) is not None]
        if self.pattern is None and self.listed is None:
            refuse_numbered([found.name for found in read])
        return self.along(read, where)

    def along(self, read: Iterable[CheckpointName], where: str) -> dict[int, CheckpointName]:
        """Returns checkpoints of one run by their training step, increasing.

        Args:
            read: names with their steps, tokens and branches.
            where: place of the checkpoints, for messages.

        Raises:
            InputError: two checkpoints of one step, or several branches without a choice.
        """
        branches = grouped(read, where)
        if self.branch is None:
            if len(branches) > 1:
                raise InputError(
                    f"got checkpoints of {len(branches)} branches in {where}: {described(branches)}; expected one, or "
                    f"branches that follow each other joined by +; choose, e.g. --branch {_example(branches)}"
                )
            path = list(branches)
        else:
            path = self.branch.split("+")
        unknown = [name for name in path if name not in branches]
        if unknown and branches:
            raise InputError(
                f"got branch {unknown[0]!r}, which {where} does not have; expected one of {described(branches)}, or "
                "several joined by +; correct branch"
            )
        return self._with_tokens(joined([branches[name] for name in path if name in branches]))

    @property
    def listed(self) -> Mapping[str, float] | None:
        """The names to be taken, where some are listed."""
        return self.tokens if self.steps is None else self.steps

    def read(self, name: str, *, any_number: bool = False, step: int | None = None) -> CheckpointName | None:
        """Reads a name, by itself or with the settings for it; None if it belongs to no checkpoint.

        Args:
            name: of a folder, a file without its ending, or a revision.
            any_number: True if a lone number in it is a step.
            step: from another source, such as the file itself; settings take precedence.
        """
        listed = self.listed
        if listed is not None and name not in listed:
            return None
        tokens = (self.tokens or {}).get(name)
        amount = tokens_of(name) if tokens is None else round(tokens)
        if self.steps is not None:
            step = self.steps[name]
        elif step is None:
            step = step_of(name, self.pattern, any_number=any_number or listed is not None)
        if step is None:
            return None
        plain = self.pattern is not None or listed is not None
        return CheckpointName(name, step, amount, MAIN if plain else branch_of(name))

    def _with_tokens(self, places: dict[int, CheckpointName]) -> dict[int, CheckpointName]:
        if self.tokens_per_step is None:
            return places
        # Exact, where those in names are rounded; what is given for a name goes before.
        given = self.tokens or {}
        return {
            step: item if item.name in given else replace(item, tokens=round(step * self.tokens_per_step))
            for step, item in places.items()
        }


PLAIN = NameRules()
"""The rules without a setting."""


def is_numbered(name: str) -> bool:
    """Returns True for a name that counts checkpoints or epochs, so that it has no training step."""
    return _NUMBERED.fullmatch(name) is not None


def is_unfinished(name: str) -> bool:
    """Returns True for a hidden folder, and for one that the Trainer of Hugging Face did not finish (``tmp-...``)."""
    return name.startswith((".", "tmp-"))


def refuse_numbered(names: Sequence[str]) -> None:
    """Refuses names that count checkpoints or epochs.

    Raises:
        InputError: some do; they are named.
    """
    numbered = [name for name in names if is_numbered(name)]
    if numbered:
        raise InputError(
            f"got checkpoints {shown(numbered)}, which are numbered, without a training step; expected the step "
            f"or the tokens of each; give name_tokens, e.g. {{{numbered[0]}: 3.5e9}}, or name_steps, or "
            r"step_pattern, e.g. '.*_(\d+)', if their numbers are steps"
        )


def tokens_of(name: str) -> int | None:
    """Returns the number of tokens in a name (``tokens4B``, ``2BT``), or None."""
    for word in _TOKENS:
        found = word.search(name)
        if found:
            return round(float(found[1]) * _UNITS[found[2].upper()])
    return None


def branch_of(name: str) -> str:
    """Returns the branch of training in a name, e.g. ``stage2-ingredient1``; :data:`MAIN` without one."""
    return "-".join(_BRANCH.findall(name)) or MAIN


def grouped(names: Iterable[CheckpointName], where: str) -> dict[str, list[CheckpointName]]:
    """Returns checkpoints by branch, each in the order of its steps.

    Args:
        names: of checkpoints.
        where: place of the checkpoints, for messages.

    Raises:
        InputError: two of one step in one branch.
    """
    branches: dict[str, dict[int, CheckpointName]] = {}
    for found in names:
        known = branches.setdefault(found.branch, {})
        if found.step in known:
            raise InputError(
                f"got two checkpoints of step {found.step}, {known[found.step].name} and {found.name} in {where}; "
                "expected one run; set step_pattern to a regular expression for names of that one, e.g. "
                "'checkpoint-(\\d+)'"
            )
        known[found.step] = found
    return {name: [known[step] for step in sorted(known)] for name, known in sorted(branches.items())}


def joined(branches: Sequence[Sequence[CheckpointName]]) -> dict[int, CheckpointName]:
    """Joins branches that follow each other into one run, by training step.

    A branch that restarts its count (its first step is not above the last one of the branch before) continues from that
    step, as do its tokens.

    Args:
        branches: checkpoints of each, in the order of their steps.
    """
    found: dict[int, CheckpointName] = {}
    for branch in branches:
        last = found[max(found)] if found else None
        anew = last is not None and branch[0].step <= max(found)
        offset = max(found) if anew else 0
        more = last.tokens if anew and last is not None else 0
        for one in branch:
            tokens = None if one.tokens is None or more is None else one.tokens + more
            found[one.step + offset] = replace(one, tokens=tokens)
    return found


def described(branches: Mapping[str, Sequence[CheckpointName]]) -> str:
    """Returns branches in words: name, steps and number of checkpoints of each."""
    words = [
        f"{name} ({len(found)} of steps {found[0].step:,} to {found[-1].step:,})" for name, found in branches.items()
    ]
    return ", ".join(words)


def shown(names: Collection[str]) -> str:
    """Returns names in words, cut where there are many."""
    return ", ".join(list(names)[:MOST_SHOWN]) + (", ..." if len(names) > MOST_SHOWN else "")


def _example(branches: Mapping[str, Sequence[CheckpointName]]) -> str:
    """Returns the longest branch, and one that starts behind it as a fork does."""
    names = list(branches)
    trunk = max(names, key=lambda name: branches[name][-1].step)
    after = [name for name in names if name > trunk]
    return f"{trunk} or {trunk}+{after[0]}" if after and trunk != MAIN else trunk
