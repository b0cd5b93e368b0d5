"""Names of samples in reports: a number, and text, label or groups beside it."""

import numpy as np
import xarray as xr

from stagewise.runs.samples_file import IN_GROUP, KIND, WORDS

_MOST_GROUPS = 3
_LARGEST = 0.5
"""Share of the samples in a group that is told: one that holds most of them says nothing of one."""


class SampleNames:
    """Names the samples of a run by their numbers in the observed set that was given."""

    def __init__(self, run: xr.Dataset) -> None:
        """Reads the words of a run; one of an earlier version, or without words, has numbers alone.

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

        Groups are told that hold half of the samples at most.

        Args:
            number: of the sample in the observed set that was given.
        """
        words, groups = self._words.get(number, ""), self._groups.get(number, [])
        told = [] if not words or self.kind == "number" or words == f"sample {number}" else [words]
        others = [name for name in groups if name != words]
        shown = others[:_MOST_GROUPS] + ([f"{len(others) - _MOST_GROUPS} more"] if len(others) > _MOST_GROUPS else [])
        inside = [f"in {', '.join(shown)}"] if shown else []
        text = f" “{told.pop()}”" if told and self.kind == "text" else ""
        if not (text or told or inside):
            return f"sample {number:,} of the observed set"
        beside = f" ({', '.join([*told, *inside])})" if told or inside else ""
        return f"sample {number:,}{text}{beside}"
