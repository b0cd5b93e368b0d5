"""Subject of a run's probes, checked before the first of them."""

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from stagewise.batches import num_samples, take
from stagewise.influence.groups import Groups, Positions
from stagewise.isolation import untouched, with_weights
from stagewise.losses.contract import Losses
from stagewise.probes.axes import flat_masks
from stagewise.probes.config import ProbeConfig
from stagewise.probes.data_digest import data_digest
from stagewise.probes.lost_samples import ObservedSet, lost_words, not_finite_rows
from stagewise.probes.memory import check_memory, gradient_memory
from stagewise.probes.start_check import check_start
from stagewise.sampling.chains import check_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.selection import masks_digest, moved_entries
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sampling.target import Target
from stagewise.sampling.trace import Trace
from stagewise.sampling.weights import FlatWeights


@dataclass(frozen=True, eq=False)
class Subject:
    """Target and groups of the probes of a run, found fit for them by :func:`examine`.

    Step size and localization have no part in it: it can be had before they are known.

    Attributes:
        target: what is measured, with the samples that are left.
        observed: the samples that are left of the observed set, with their numbers in the set as it was given.
        config: the measurement.
        share: which of the chains this process runs.
        axes: sizes of the axes that losses have behind the sample's.
        moved_weights: how many weights chains move.
        memory_gib: what draws and products need beside the chains.
        gradient_block: weights whose gradients are held at once; all if None.
        digest: text that tells other data, the set as it was given.
    """

    target: Target
    observed: ObservedSet
    config: ProbeConfig
    share: ChainShare
    axes: tuple[int, ...]
    moved_weights: int
    memory_gib: float
    gradient_block: int | None
    digest: str = ""

    def __post_init__(self) -> None:
        _ = self.reduced  # refuses what does not fit

    @cached_property
    def groups(self) -> Groups:
        """The groups over the samples that are left."""
        return Groups(self.observed.masks, self.observed.present)

    @cached_property
    def positions(self) -> Positions | None:
        """Bins of positions, where they are asked for."""
        bins = self.config.position_bins
        return None if bins is None else Positions(self.groups, self.observed.present, bins)

    @cached_property
    def reduced(self) -> Groups:
        """Groups that draws are reduced to: the groups, then the bins."""
        return self.groups if self.positions is None else self.positions.joint

    @property
    def lost(self) -> tuple[int, ...]:
        """Numbers of the observed samples that are left out, increasing."""
        return tuple(int(number) for number in np.setdiff1d(np.arange(self.observed.num_given), self.observed.numbers))

    def lost_in(self, trace: Trace) -> tuple[int, ...]:
        """Numbers of the samples that kept a probe from its chains: of a loss that is not finite at its weights.

        Args:
            trace: of the probe.

        Returns:
            None of them where the losses of all samples are such: then it is the model that is to be looked at.
        """
        rows = not_finite_rows(trace.anchor_loss)
        return (
            () if len(rows) == len(trace.anchor_loss) else tuple(int(number) for number in self.observed.numbers[rows])
        )

    def without(self, samples: Collection[int]) -> tuple["Subject", tuple[str, ...]]:
        """The subject without some samples, and the groups that lost all their losses and went with them.

        Args:
            samples: numbers in the set as it was given.

        Raises:
            InputError: too little would be left.
        """
        left, gone = self.observed.without(samples)
        return replace(self, observed=left, target=replace(self.target, observed=left.batch)), gone

    def with_smaller_chunks(self) -> "Subject | None":
        """The subject in chunks of half the size, to need less memory; None where they are of one sample already."""
        size = num_samples(self.target.observed)
        now = min(self.target.chunk_size or size, size)
        return None if now == 1 else replace(self, target=replace(self.target, chunk_size=(now + 1) // 2))

    def numbered(self, found: xr.Dataset, axis: str, rows: list[int] | None = None) -> xr.Dataset:
        """A data set with the numbers of samples in the set as it was given, where some of it is left out.

        Args:
            found: over ``axis``.
            axis: of samples.
            rows: positions of its samples among those that are left; all of them if None.
        """
        if self.observed.is_whole:
            return found
        numbers = self.observed.numbers if rows is None else self.observed.numbers[rows]
        return found.assign_coords({axis: (axis, numbers), f"{axis}_j": (f"{axis}_j", numbers)})

    def fingerprint(self, sgld: SGLDConfig) -> dict[str, str]:
        """Settings and data that must stay the same over a run for its probes to compare, as text.

        Args:
            sgld: the sampler of influence.
        """
        found = {
            "sgld": repr(sgld),
            "centering": str(self.config.centering),
            "reference_ratio": repr(self.config.reference_ratio),
            "data": self.digest,
        }
        # Without chains of its own the learning coefficient depends on no other settings.
        own = self.config.llc.own_sgld(sgld)
        if own is not None:
            found["llc"] = repr(own)
        masks = self.target.selection
        return found | {"masks": masks_digest(masks)} if isinstance(masks, Mapping) else found


def examine(
    module: nn.Module,
    target: Target,
    groups: Mapping[str, Tensor],
    sgld: SGLDConfig,
    config: ProbeConfig,
    *,
    share: ChainShare = ALONE,
    lost: Collection[int] | None = None,
    warn: Callable[[str], object] = warnings.warn,
) -> Subject:
    """Check everything that can be checked before the first probe; ``lr`` and ``localization`` may be ``auto`` still.

    Args:
        module: what will be probed; left bit for bit as it was.
        target: what is measured.
        groups: name to bool mask over the observed set; one of everything where there are none.
        sgld: the sampler.
        config: the measurement.
        share: which of the chains of each probe this process runs.
        lost: numbers of observed samples that are left out, neither more nor less, as of a run that is resumed; if
            None, those whose loss is not finite now.
        warn: told which those are.

    Raises:
        LossContractError: the loss breaks its contract; or it is not finite in all of the observed set, or in the
            sampling set.
        InputError: a parameter pattern matches nothing; masks, groups, position bins or chosen samples do not fit;
            there are fewer chains than processes; or what is asked for needs more memory than allowed.
    """
    target = target.moved_by(sgld)
    share.numbers(sgld.num_chains)
    # Once for a run with checksums: what a loss does to a module without autograd's knowing, it does each time.
    with untouched(module, checksums=True):
        axes, memory_gib, block = _memory(module, target, max(1, len(groups)), sgld, config, share)
        present, bad, seen, moved_weights = check_start(
            module, target, batch_size=sgld.batch_size, lost=frozenset(lost or ())
        )
    numbers = np.arange(len(present))
    whole = ObservedSet(target.observed, flat_masks(groups, axes), present, numbers, len(present))
    subject = Subject(target, whole, config, share, axes, moved_weights, memory_gib, block)
    # Of what was given: a sample that is left out later does not make it other data.
    subject = replace(subject, digest=data_digest((target.observed, target.driving), subject.reduced))
    subject, gone = subject.without(bad if lost is None else lost)
    if lost is None and len(bad) and share.is_first:
        warn(lost_words(bad, gone, seen=seen, num_left=len(subject.observed.numbers)))
    check_chains(module, subject.target, sgld)
    own = config.llc.own_sgld(sgld)
    if own is not None:
        share.numbers(own.num_chains)
    return subject


def _memory(
    module: nn.Module, target: Target, num_groups: int, sgld: SGLDConfig, config: ProbeConfig, share: ChainShare
) -> tuple[tuple[int, ...], float, int | None]:
    """Refuse before the work: two samples tell how many losses each has. Axes, GiB, and weights in a gradient block."""
    leaves = FlatWeights(module, target.selection).leaves

    @torch.no_grad()
    def few_losses() -> Losses:
        # Not one: a norm over the batch that is always on refuses that.
        return target.evaluate(module, take(target.observed, slice(0, 2)))

    few = with_weights(module, leaves, few_losses)
    shape = (num_samples(target.observed), *few.values.shape[1:])
    others = check_memory(config, sgld, loss_shape=shape, num_groups=num_groups, num_processes=share.world_size)
    moved = moved_entries(module, target.selection)
    block, gib = gradient_memory(
        config,
        others,
        num_groups=num_groups,
        num_weights=sum(entries.size for entries in moved),
        weight_bytes=max(4, *(entries.dtype.itemsize for entries in moved)),
    )
    return few.axes, others + gib, block
