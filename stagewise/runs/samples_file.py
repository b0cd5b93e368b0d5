"""Words and groups of the observed samples, written once next to the store of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from stagewise.files.writing import whole_file
from stagewise.files.zarr_file import read_content, write_zarr_file
from stagewise.runs.probe_files import FORMAT_VERSION, VERSION, refuse_newer

SAMPLES_NAME = "samples.zip"
"""File in the folder of a run: a Zarr group, like a probe."""

WORDS, IN_GROUP, KIND = "sample_words", "in_group", "kind"
"""Names of the two variables, and of the attribute with the kind of the words."""


def samples_dataset(words: Sequence[str], kind: str, groups: Mapping[str, ArrayLike]) -> xr.Dataset:
    """Returns words and groups of each sample of the observed set as given.

    Args:
        words: ``[sample]``.
        kind: of the words: ``text``, ``label``, ``index`` or ``number``.
        groups: name to bool ``[sample]`` or ``[sample, ...]``.

    Returns:
        ``sample_words`` ``[sample]`` and ``in_group`` ``[group, sample]``, True where a group has any loss of a sample.
    """
    members = [np.asarray(mask, dtype=bool).reshape(len(words), -1).any(axis=1) for mask in groups.values()]
    return xr.Dataset(
        {
            WORDS: ("sample", np.array(list(words), dtype=object), {KIND: kind}),
            IN_GROUP: (("group", "sample"), np.array(members, dtype=bool).reshape(len(groups), len(words))),
        },
        coords={"group": ("group", np.array(list(groups), dtype=object))},
    )


def write_samples(folder: Path, samples: xr.Dataset) -> Path:
    """Writes the file atomically; returns its path.

    Args:
        folder: of the run.
        samples: from :func:`samples_dataset`.

    Raises:
        OSError: it could not be written.
    """
    path = folder / SAMPLES_NAME
    with whole_file(path) as aside:
        write_zarr_file(aside, samples.assign_attrs({VERSION: FORMAT_VERSION}))
    return path


def with_samples(run: xr.Dataset, folder: Path) -> xr.Dataset:
    """Adds words and groups of the samples to a run, as coordinates; a run without them is returned unchanged.

    Args:
        run: with the numbers of its samples if some were left out.
        folder: of the run.

    Raises:
        NewerFormat: the file is of a newer format.
        Exception: the file is damaged; of many types.
    """
    path = folder / SAMPLES_NAME
    if "sample" not in run.dims or not path.is_file():
        return run
    samples = read_content(path).dataset()
    refuse_newer(path, samples.attrs.get(VERSION))
    known = samples.sizes["sample"]
    if "sample" in run.coords:
        numbers = run["sample"].values
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < known:
            return run
    elif run.sizes["sample"] == known:
        numbers = np.arange(known)
    else:  # of another observed set
        return run
    words = samples[WORDS]
    run = run.assign_coords({WORDS: ("sample", words.values[numbers], words.attrs)})
    names = samples["group"].values.tolist()
    if "group" in run.coords and set(run["group"].values.tolist()) <= set(names):
        rows = [names.index(name) for name in run["group"].values.tolist()]
        run = run.assign_coords({IN_GROUP: (("group", "sample"), samples[IN_GROUP].values[rows][:, numbers])})
    return run
