"""Baselines measured at every probe: gradient dot product, TracIn, damped influence function."""

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
    """Baselines over the observed set and the parameters of the chains."""

    def __init__(
        self,
        target: Target,
        groups: Groups,
        *,
        sgld: ResolvedSGLD,
        config: ProbeConfig,
        gradient_block: int | None = None,
    ) -> None:
        """Starts before the first probe.

        Args:
            target: of the chains; the damped influence function uses the Hessian over its sampling set.
            groups: over the observed set.
            sgld: the sampler, which determines the damping.
            config: selects the baselines.
            gradient_block: weights whose gradients are held at once; all if None.
        """
        self._target = target
        self._groups = groups
        self._sgld = sgld
        self._config = config
        self._gradient_block = gradient_block

    def rechunk(self, chunk_size: int) -> None:
        """Sets the number of samples for each forward pass."""
        self._target = replace(self._target, chunk_size=chunk_size)

    def measure(self, module: nn.Module, step: int, lr_sum: float | None, tracin: TracInOfRun) -> Variables:
        """Returns variables of a probe's data set, ``[group, group_j]``.

        ``graddot`` and ``tracin``: positive = helpful; ``damped_influence``: negative = helpful. All are NaN where two
        groups have no pair of losses in different samples. TracIn begins with the first probe after the first training
        step, and skips probes with a gradient that is not finite. The damped influence function is NaN, with the reason
        in its attribute ``refused``, if H + (weight_decay + localization / nbeta) I is not positive definite.

        Args:
            module: at the weights of the probe.
            step: training step.
            lr_sum: sum of the learning rates over training so far; None disables TracIn.
            tracin: running sum, updated.
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
        """Describes the pairs of losses in the mean."""
        folds = assign_folds(self._groups.counts, self._config.gradient_dot_folds)
        num = folds.max() + 1
        return "in different samples" if num == (folds >= 0).sum() else f"in different folds of {num}"

    def _damped(self, module: nn.Module) -> tuple[tuple[str, str], np.ndarray, dict[str, str]]:
        attributes = {"units": damped.UNITS, "sign": SIGN}
        try:
            values = damped.damped_influence(
                module,
                # Second derivatives are too inaccurate under autocast.
                replace(self._target, forward_context=nullcontext),
                self._groups,
                posterior=self._sgld.posterior,
            )
        except InputError as refused:
            values = np.full((len(self._groups), len(self._groups)), np.nan)
            attributes["refused"] = str(refused)
        return _AXES, values, attributes
