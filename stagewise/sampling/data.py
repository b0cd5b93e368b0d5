"""Data of a probe: the observed set, its groups, and the sampling set."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stagewise.batches import Batch, num_samples
from stagewise.checks.group_names import check_group_names
from stagewise.errors import InputError


@dataclass(frozen=True)
class ProbeData:
    """Fixed data of all probes of a run.

    The callback uses the return value of the data module's method ``probe_data()``, if it has one.

    Attributes:
        observed: batch whose losses are recorded at every draw.
        sampling: batch for the stochastic gradients; the observed set if None.
        groups: maps names to bool masks, ``[sample]`` or of the shape of the losses (``[sample, token]``, or e.g.
            ``[sample, height, width]``, flattened or not). Groups may overlap, need not cover everything, and may hold
            a single sample. Without groups there is one, ``all``; the callback first looks for labels and token
            classes.

    Raises:
        InputError: an empty set, an invalid name, or a mask that selects nothing or has the wrong leading size.
    """

    observed: Batch
    sampling: Batch | None = None
    groups: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.groups, Mapping):
            raise InputError(f"got groups as {type(self.groups).__name__}; expected a mapping of names to bool masks")
        check_group_names(self.groups)
        size = num_samples(self.observed)
        if size == 0:
            raise InputError("got an empty observed set; expected at least one sample")
        if self.sampling is not None and num_samples(self.sampling) == 0:
            raise InputError("got an empty sampling set; expected at least one sample, or None for the observed set")
        for name, mask in self.groups.items():
            if not isinstance(mask, Tensor) or mask.dim() == 0 or len(mask) != size:
                shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
                raise InputError(
                    f"got group {name!r} of shape {shape}; expected a bool mask [{size}] or [{size}, token] (or "
                    "more axes, as the losses have) over the observed set"
                )
            if not torch.any(mask):
                raise InputError(
                    f"got group {name!r} that selects nothing in the observed set; widen it or leave it out"
                )
