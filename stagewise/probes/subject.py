"""Subject of a run's probes, checked before the first one."""

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
from stagewise.isolation import untouched
from stagewise.losses.contract import Losses
from stagewise.probes.axes import flat_masks
from stagewise.probes.config import ProbeConfig
from stagewise.probes.data_digest import data_digest
from stagewise.probes.lost_samples import ObservedSet, lost_words, not_finite_rows
from stagewise.probes.memory import check_memory, gradient_memory
from stagewise.probes.start_check import check_start
from stagewise.sampling.chain_inputs import check_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.selection import masks_digest
from stagewise.sampling.sharded_weights import ShardedWeights, weights_of, while_moving
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sampling.target import Target
from stagewise.sampling.trace import Trace


@dataclass(frozen=True, eq=False)
class Subject:
    """Target and groups of the probes of a run, checked by :func:`examine`.

    Independent of step size and localization, which may still be ``auto``.

    Attributes:
        target: of the measurement, over the remaining samples.
        observed: remaining samples of the observed set, with their numbers in the original set.
        config: the measurement.
        share: chains of this process.
        axes: sizes of the axes of losses after the sample axis.
        moved_weights: number of weights that chains move.
        memory_gib: memory of draws and products, without the chains.
        gradient_block: weights whose gradients are held at once; all if None.
        digest: of the original data.
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
        _ = self.reduced  # raises if groups do not fit

    @cached_property
    def groups(self) -> Groups:
        """Groups over the remaining samples."""
        return Groups(self.observed.masks, self.observed.present)

    @cached_property
    def positions(self) -> Positions | None:
        """Bins of positions, if enabled."""
        bins = self.config.position_bins
        return None if bins is None else Positions(self.groups, self.observed.present, bins)

    @cached_property
    def reduced(self) -> Groups:
        """Features to which draws are reduced: the groups, then the bins."""
        return self.groups if self.positions is None else self.positions.joint

    @property
    def lost(self) -> tuple[int, ...]:
        """Numbers of the observed samples that are left out, increasing."""
        return tuple(int(number) for number in np.setdiff1d(np.arange(self.observed.num_given), self.observed.numbers))

    def lost_in(self, trace: Trace) -> tuple[int, ...]:
        """Returns the numbers of the samples whose loss is not finite at the weights of a probe.

        Args:
            trace: of the probe.

        Returns:
            Empty if no loss is finite: then the model is at fault.
        """
        rows = not_finite_rows(trace.anchor_loss)
        return (
            () if len(rows) == len(trace.anchor_loss) else tuple(int(number) for number in self.observed.numbers[rows])
        )

    def without(self, samples: Collection[int]) -> tuple["Subject", tuple[str, ...]]:
        """Returns the subject without some samples, and the names of the groups that are left without losses.

        Args:
            samples: numbers in the original set.

        Raises:
            InputError: no losses or no groups would be left.
        """
        left, gone = self.observed.without(samples)
        return replace(self, observed=left, target=replace(self.target, observed=left.batch)), gone

    def with_smaller_chunks(self) -> "Subject | None":
        """Returns the subject with chunks of half the size, to save memory; None if they hold one sample."""
        size = num_samples(self.target.observed)
        now = min(self.target.chunk_size or size, size)
        return None if now == 1 else replace(self, target=replace(self.target, chunk_size=(now + 1) // 2))

    def numbered(self, found: xr.Dataset, axis: str, rows: list[int] | None = None) -> xr.Dataset:
        """Adds the original numbers of the samples, if some samples are left out.

        Args:
            found: over ``axis``.
            axis: of samples.
            rows: positions of its samples among the remaining ones; all if None.
        """
        if self.observed.is_whole:
            return found
        numbers = self.observed.numbers if rows is None else self.observed.numbers[rows]
        return found.assign_coords({axis: (axis, numbers), f"{axis}_j": (f"{axis}_j", numbers)})

    def fingerprint(self, sgld: SGLDConfig) -> dict[str, str]:
        """Returns the settings and data that the probes of a run must share to be comparable, as text.

        Args:
            sgld: the sampler of influence.
        """
        found = {
            "sgld": repr(sgld),
            "centering": str(self.config.centering),
            "reference_ratio": repr(self.config.reference_ratio),
            "data": self.digest,
        }
        # Without separate chains the learning coefficient depends on no other settings.
        own = self.config.llc.own_sgld(sgld)
        if own is not None:
            found["llc"] = repr(own)
        if self.target.sharding is not None:
            found["noise"] = "by rows of parameters in shards"
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
    """Checks all inputs before the first probe; ``lr`` and ``localization`` may still be ``auto``.

    Args:
        module: module to probe; restored bit for bit.
        target: of the measurement.
        groups: name to bool mask over the observed set; if empty, a single group of all losses.
        sgld: the sampler.
        config: the measurement.
        share: chains of this process in each probe.
        lost: numbers of the observed samples to leave out, as in a resumed run; if None, those whose loss is not
            finite.
        warn: called with a warning about these.

    Raises:
        LossContractError: the loss breaks its contract; or it is not finite in all of the observed set, or in the
            sampling set.
        InputError: a parameter pattern matches nothing; masks, groups, position bins or chosen samples do not fit;
            there are fewer chains than processes; or the memory limit is exceeded.
    """
    target = target.moved_by(sgld)
    share.numbers(sgld.num_chains)
    # With checksums once per run: hidden changes of the module by the loss occur at each call.
    with untouched(module, checksums=True):
        axes, memory_gib, block = _memory(module, target, max(1, len(groups)), sgld, config, share)
        present, bad, seen, moved_weights = check_start(
            module, target, batch_size=sgld.batch_size, lost=frozenset(lost or ())
        )
    numbers = np.arange(len(present))
    whole = ObservedSet(target.observed, flat_masks(groups, axes), present, numbers, len(present))
    subject = Subject(target, whole, config, share, axes, moved_weights, memory_gib, block)
    # Digest of the original data: samples that are left out later do not change it.
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
    """Checks the memory from the losses of two samples; returns axes, GiB, and weights in a gradient block."""
    weights = weights_of(module, target)

    @torch.no_grad()
    def few_losses() -> Losses:
        # Not one: batch normalisation in train mode refuses that.
        return target.evaluate(module, take(target.observed, slice(0, 2)))

    few = while_moving(module, weights, few_losses)
    shape = (num_samples(target.observed), *few.values.shape[1:])
    sharing = 1 if share.together else share.world_size
    others = check_memory(config, sgld, loss_shape=shape, num_groups=num_groups, num_processes=sharing)
    moved = weights.entries
    block, gib = gradient_memory(
        config,
        others,
        num_groups=num_groups,
        num_weights=weights.most if isinstance(weights, ShardedWeights) else len(weights.anchor),
        weight_bytes=max(4, *(entries.dtype.itemsize for entries in moved)),
    )
    return few.axes, others + gib, block
