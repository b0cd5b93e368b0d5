"""The baselines that stand beside influence at every probe: gradient dot product, TracIn, damped influence function."""

from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property

import numpy as np
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.baselines import damped, graddot
from stagewise.influence.baselines.folds import assign_folds
from stagewise.influence.baselines.tracin import UNITS as TRACIN_UNITS
from stagewise.influence.groups import Groups
from stagewise.influence.sign import SIGN
from stagewise.probes.carried import TracInOfRun
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.config import ResolvedSGLD
from stagewise.sampling.target import Target

_AXES = ("group", "group_j")

Variables = dict[str, tuple[tuple[str, str], np.ndarray, dict[str, str]]]


class Baselines:
    """Measures them over the same observed set and the same parameters as the chains."""

    def __init__(
        self,
        target: Target,
        groups: Groups,
        *,
        sgld: ResolvedSGLD,
        config: ProbeConfig,
        gradient_block: int | None = None,
    ) -> None:
        """Start before the first probe.

        Args:
            target: what the chains look at; the damped influence function takes the Hessian over its sampling set.
            groups: over the observed set.
            sgld: the sampler, for the damping localization / nbeta.
            config: which baselines are asked for.
            gradient_block: weights whose gradients are held at once; all if None.
        """
        self._target = target
        self._groups = groups
        self._sgld = sgld
        self._config = config
        self._gradient_block = gradient_block

    def rechunk(self, chunk_size: int) -> None:
        """Take so many samples for each forward pass from now on."""
        self._target = replace(self._target, chunk_size=chunk_size)

    def measure(self, module: nn.Module, step: int, lr_sum: float | None, tracin: TracInOfRun) -> Variables:
        """Variables of a probe's data set, ``[group, group_j]``.

        ``graddot`` and ``tracin``: positive = helpful; ``damped_influence``: negative = helpful. All are NaN where two
        groups have no pair of losses in different samples. TracIn begins with the first probe after the first training
        step, and leaves out probes with a gradient that is not finite. The damped influence function is NaN, and says
        why in its attribute ``refused``, where H + (weight_decay + localization / nbeta) I is not positive definite.

        Args:
            module: at the weights to look at.
            step: training step.
            lr_sum: learning rates of training, summed over all its steps so far; without it there is no TracIn.
            tracin: its sum so far, which is added to.
        """
        found: Variables = {}
        if self._config.gradient_dot:
            dot = graddot.gradient_dot(
                module,
                self._target,
                self._groups,
                num_folds=self._config.gradient_dot_folds,
                block_size=self._gradient_block,
            )
            found["graddot"] = (_AXES, dot, {"units": graddot.UNITS, "sign": graddot.SIGN, "pairs": self._pairs})
            total = tracin.add_probe(dot, step, lr_sum, defined=self._groups.has_pairs)
            if total is not None:
                found["tracin"] = (_AXES, total, {"units": TRACIN_UNITS, "sign": graddot.SIGN, "pairs": self._pairs})
        if self._config.damped_influence:
            found["damped_influence"] = self._damped(module)
        return found

    @cached_property
    def _pairs(self) -> str:
        """Describes the pairs of losses that the mean is taken over."""
        folds = assign_folds(self._groups.counts, self._config.gradient_dot_folds)
        num = folds.max() + 1
        return "in different samples" if num == (folds >= 0).sum() else f"in different folds of {num}"

    def _damped(self, module: nn.Module) -> tuple[tuple[str, str], np.ndarray, dict[str, str]]:
        attributes = {"units": damped.UNITS, "sign": SIGN}
        try:
            values = damped.damped_influence(
                module,
                # Second derivatives are too rough under autocast.
                replace(self._target, forward_context=nullcontext),
                self._groups,
                posterior=self._sgld.posterior,
            )
        except InputError as refused:
            values = np.full((len(self._groups), len(self._groups)), np.nan)
            attributes["refused"] = str(refused)
        return _AXES, values, attributes
