"""Words and groups of the observed samples, as a run keeps them."""

import xarray as xr

from stagewise.callbacks.tokenizers import FoundTokenizer, token_ids
from stagewise.probes.sample_words import words_of
from stagewise.runs.samples_file import samples_dataset
from stagewise.sampling.data import ProbeData


def observed_words(data: ProbeData, found: FoundTokenizer | None) -> xr.Dataset:
    """Returns what :func:`~stagewise.runs.samples_file.samples_dataset` does, of the observed set as it was given.

    Args:
        data: of the probes, with its groups.
        found: tokenizer of the run, where there is one.
    """
    ids = None if found is None else token_ids(data.observed)
    told = words_of(data.observed, ids, None if found is None else found.tokenizer)
    return samples_dataset(told.words, told.kind, {name: mask.detach().cpu() for name, mask in data.groups.items()})
