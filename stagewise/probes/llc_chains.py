"""Local learning coefficient of each probe, from the draws of influence or from separate chains."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from arviz_stats.base import array_stats
from torch import Tensor, nn

from stagewise.checks.counted import counted
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.influence.llc import MeanLosses, llc, llc_remarks, mean_losses_of
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, ResolvedSGLD
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sampling.target import Target
from stagewise.sampling.trace import Trace, merge_traces

_MIN_DRAWS = 4
"""Below this many draws R-hat and the effective sample size of split chains are undefined."""


class LearningCoefficient:
    """Estimator of the learning coefficient at each probe.

    Separate chains use the same random streams, engine and distribution over processes as those of influence.
    """

    def __init__(
        self,
        module: nn.Module,
        target: Target,
        groups: Groups,
        *,
        sgld: ResolvedSGLD,
        config: ProbeConfig,
        share: ChainShare = ALONE,
    ) -> None:
        """Runs nothing yet.

        Args:
            module: module to probe.
            target: of the chains of influence.
            groups: over the observed set.
            sgld: the sampler of influence.
            config: of the measurement.
            share: chains of this process.

        Raises:
            InputError: separate settings that are incompatible with those of influence, or fewer chains than processes.
        """
        self._module, self._target = module, target
        self._groups, self._means = groups, MeanLosses(groups)
        self._config, self._sgld = config, sgld
        self._share = share
        self.own = config.llc.own_sgld(sgld)
        self._numbers = None if self.own is None else share.numbers(self.own.num_chains)
        self._sampler: ChainSampler | None = None

    def rechunk(self, chunk_size: int) -> None:
        """Sets the number of samples for each forward pass."""
        self._target = replace(self._target, chunk_size=chunk_size)
        if self._sampler is not None:
            self._sampler.rechunk(chunk_size)

    def run(
        self, step: int, second_moments: Mapping[str, Tensor] | None, *, engine: EngineName | None
    ) -> tuple[Trace, float] | None:
        """Runs this process's part of the separate chains, if configured.

        Args:
            step: training step.
            second_moments: of Adam, by parameter name, for ``AdamMoments``.
            engine: of the chains of influence, used here too, so that a resumed run equals an uninterrupted one.

        Returns:
            The trace of these chains and their time in seconds; None without separate chains.
        """
        if self.own is None:
            return None
        start = time.perf_counter()
        if self._sampler is None or self._sampler.engine is None:
            self._sampler = ChainSampler(self._module, self._target, self.own, reduce=self._means, engine=engine)
        trace = self._sampler.run(step, second_moments, numbers=self._numbers)
        return trace, time.perf_counter() - start

    def measure(self, trace: Trace, features: GroupDraws, parts: Sequence[tuple[Trace, float]]) -> dict[str, Any]:
        """Returns variables of a probe's data set, by name.

        Args:
            trace: of influence, with at least one chain.
            features: its draws, reduced to groups.
            parts: from :meth:`run`, of all processes that share the chains; empty without separate chains.

        Returns:
            See :func:`stagewise.influence.llc.llc`, and ``llc_note``: reasons not to rely on it; empty if none. The
            settings of the chains are attributes of ``llc``. With separate chains also ``llc_rhat`` and ``llc_ess``
            (the worst of all losses and groups), ``llc_chains_dropped`` and ``llc_seconds``; values are NaN if all
            separate chains failed.
        """
        sgld = self._sgld if self.own is None else self.own
        own = bool(parts)
        if not own:
            losses = mean_losses_of(features, self._groups)
        else:
            trace, seconds = merge_traces([part for part, _ in parts]), max(seconds for _, seconds in parts)
            losses = trace.reduced if trace.reduced is not None else np.empty((0, sgld.num_draws, 0))
        anchor = self._means(torch.from_numpy(trace.anchor_loss)).numpy()
        failed = not len(losses)
        if failed:
            losses = np.full((1, sgld.num_draws, len(anchor)), np.nan)
        found = llc(losses, anchor, self._groups, nbeta=sgld.nbeta)
        remarks = llc_remarks(found, nbeta=sgld.nbeta)
        variables: dict[str, Any] = {str(name): variable for name, variable in found.variables.items()}
        if own:
            rhat, ess = (np.nan, np.nan) if failed else _mixing(losses)
            variables["llc_rhat"] = ((), rhat, {"long_name": "largest R-hat of the mean losses", "units": "1"})
            fewest = {"long_name": "fewest effective draws of the mean losses", "units": "draws"}
            variables["llc_ess"] = ((), ess, fewest)
            variables["llc_chains_dropped"] = len(trace.dropped)
            variables["llc_seconds"] = ((), seconds, {"long_name": "time of its own chains", "units": "s"})
            limit = self._config.thresholds.rhat_max
            if limit is not None and rhat > limit:
                remarks.append(
                    f"got R-hat {rhat:.3g} of a mean loss; expected at most {limit:g}; raise "
                    "probe.llc.num_burnin_steps or probe.llc.num_draws"
                )
            if trace.dropped:
                diverged = counted(len(trace.dropped), "chain")
                remarks.append(f"got {diverged} that diverged; expected none; lower probe.llc.lr")
        if failed:
            variables["llc_chains"] = 0
        variables["llc_note"] = ((), np.array("; ".join(remarks), dtype=object))
        variables["llc"].attrs |= {
            "chains": "its own" if own else "those of influence",
            "nbeta": sgld.nbeta,
            "localization": sgld.localization,
            "lr": sgld.lr,
        }
        return variables


def _mixing(losses: np.ndarray) -> tuple[float, float]:
    """Returns the largest R-hat and smallest bulk ESS of ``[chain, draw, curve]``; NaN where undefined."""
    moving = losses[:, :, losses.std(axis=(0, 1)) > 0]
    if losses.shape[1] < _MIN_DRAWS or not moving.shape[2]:
        return np.nan, np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        rhat = array_stats.rhat(moving, chain_axis=0, draw_axis=1)
        ess = array_stats.ess(moving, chain_axis=0, draw_axis=1)
    return float(np.max(rhat)), float(np.min(ess))
