"""Training step in the name of a checkpoint, and the identity of its files."""

import re
from collections.abc import Iterable
from pathlib import Path

import regex

from stagewise.checks.patterns import compiled, whole_match
from stagewise.errors import require

_NUMBER = r"(\d+)(?![\dA-Za-z]|\.\d)"
"""A separate whole number: not the 4 of ``4B``, the 10 of ``10k`` or a part of ``0.5``."""

_WORDS = (
    re.compile(rf"(?<![a-z])(?:global[-_ ]?)?steps?[-_= ]?{_NUMBER}", re.IGNORECASE),
    re.compile(rf"(?<![a-z])(?:iter|iters|iteration|iterations|ba|batch|batches|update|updates)[-_= ]?{_NUMBER}", re.I),
    re.compile(rf"(?<![a-z])(?:checkpoint|ckpt|chkpt|cp)[-_= ]?{_NUMBER}", re.IGNORECASE),
)
"""Words before a step, the clearest first: a name may count epochs and tokens, too."""

_ALONE = re.compile(rf"(?<![\d.])(?<!\d[A-Za-z]){_NUMBER}")


_MOST_DIGITS = 18


def check_pattern(pattern: str) -> "regex.Pattern[str]":
    """Returns a regular expression with one group, compiled.

    Raises:
        InputError: invalid expression, or another number of groups.
    """
    expected, advice = "a regular expression with one group, the step", r"e.g. 'model_e\d+_s(\d+)'"
    known = compiled(pattern, name="step_pattern", expected=expected, advice=advice)
    require(known.groups == 1, "step_pattern", repr(pattern), expected, advice)
    return known


def step_of(name: str, pattern: str | None = None, *, any_number: bool = False) -> int | None:
    """Returns the training step in a name, or None.

    ``step500``, ``step-500``, ``step_500``, ``global_step500``, ``epoch=1-step=500``, ``step500-tokens4B``,
    ``iter_0000500``, ``ep1-ba500``, ``checkpoint-500`` and ``ckpt_500`` are all of step 500. A name with several
    numbers and none of these words needs a pattern.

    Args:
        name: of a folder or file, without the folders above.
        pattern: regular expression for the whole name, instead of the rule above; its one group is the step.
        any_number: True if a lone number without such a word is a step, too (``500``, ``model_500``).

    Raises:
        InputError: an invalid pattern, or one that needs more than a second for a name.
    """
    if pattern is not None:
        match = whole_match(check_pattern(pattern), name)
        return _step(match[1] or "") if match else None
    for word in _WORDS:
        found = set(word.findall(name))
        if found:
            return _step(found.pop()) if len(found) == 1 else None
    found = set(_ALONE.findall(name)) if any_number else set()
    return _step(found.pop()) if len(found) == 1 else None


def _step(digits: str) -> int | None:
    """Returns digits as a step; None if there are more than in any run."""
    return int(digits) if digits.isdecimal() and len(digits) <= _MOST_DIGITS else None


def file_identity(paths: Iterable[Path]) -> str:
    """Returns names, sizes and modification times, without folders. Weights are not read, which would take too long.

    Args:
        paths: of files.
    """
    stats = ((path.name, path.stat()) for path in sorted(paths) if path.is_file())
    return "; ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
