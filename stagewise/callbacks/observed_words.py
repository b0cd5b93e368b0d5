"""Words and groups of the observed samples, as a run keeps them."""

import xarray as xr

from stagewise.callbacks.tokenizers import FoundTokenizer, token_ids
from stagewise.probes.sample_words import words_of
from stagewise.runs.samples_file import samples_dataset
from stagewise.sampling.data import ProbeData


def observed_words(data: ProbeData, found: FoundTokenizer | None) -> xr.Dataset:
    """Returns the data set of :func:`~stagewise.runs.samples_file.samples_dataset` for the observed set as given.

    Args:
        data: of the probes, with groups.
        found: tokenizer of the run; None without one.
    """
    ids = None if found is None else token_ids(data.observed)
    named = words_of(data.observed, ids, None if found is None else found.tokenizer)
    return samples_dataset(named.words, named.kind, {name: mask.detach().cpu() for name, mask in data.groups.items()})
