"""Names of samples in reports: a number with text, label or groups."""

import numpy as np
import xarray as xr

from stagewise.runs.samples_file import IN_GROUP, KIND, WORDS

_MOST_GROUPS = 3
_LARGEST = 0.5
"""Largest share of the samples in a group that is named: a group of most samples says little about one."""


class SampleNames:
    """Names the samples of a run by their numbers in the observed set that was given."""

    def __init__(self, run: xr.Dataset) -> None:
        """Reads the words of a run; a run of an earlier version, or without words, has only numbers.

        Args:
            run: as :func:`stagewise.runs.open.open_run` returns it.
        """
        self._words: dict[int, str] = {}
        self._groups: dict[int, list[str]] = {}
        self.kind = ""
        if WORDS not in run.coords:
            return
        numbers = run["sample"].values if "sample" in run.coords else np.arange(run.sizes["sample"])
        self._words = dict(zip(numbers.tolist(), run[WORDS].values.tolist(), strict=True))
        self.kind = str(run[WORDS].attrs.get(KIND, ""))
        if IN_GROUP not in run.coords:
            return
        names = [str(name) for name in run["group"].values]
        members = run[IN_GROUP].transpose("group", "sample").values
        telling = members.mean(axis=1) <= _LARGEST
        for column, number in enumerate(numbers.tolist()):
            self._groups[number] = [names[row] for row in np.flatnonzero(members[:, column] & telling)]

    def __call__(self, number: int) -> str:
        """Returns the name of a sample: ``sample 3 (label 1)``, ``sample 3 “its text” (in few)``, or the number alone.

        Only groups of at most half of the samples are named.

        Args:
            number: of the sample in the observed set that was given.
        """
        words, groups = self._words.get(number, ""), self._groups.get(number, [])
        parts = [] if not words or self.kind == "number" or words == f"sample {number}" else [words]
        others = [name for name in groups if name != words]
        shown = others[:_MOST_GROUPS] + ([f"{len(others) - _MOST_GROUPS} more"] if len(others) > _MOST_GROUPS else [])
        inside = [f"in {', '.join(shown)}"] if shown else []
        text = f" “{parts.pop()}”" if parts and self.kind == "text" else ""
        if not (text or parts or inside):
            return f"sample {number:,} of the observed set"
        beside = f" ({', '.join([*parts, *inside])})" if parts or inside else ""
        return f"sample {number:,}{text}{beside}"
