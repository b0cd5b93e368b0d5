"""The baselines that stand beside influence at every probe: gradient dot product, TracIn, damped influence function."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.baselines import damped, graddot, tracin
from stagewise.influence.baselines.folds import assign_folds
from stagewise.influence.bif import SIGN
from stagewise.influence.groups import Groups
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.target import Target

_AXES = ("group", "group_j")

Variables = dict[str, tuple[tuple[str, str], np.ndarray, dict[str, str]]]


class Baselines:
    """Measures them over the same observed set and the same parameters as the chains, and sums TracIn over the run."""

    def __init__(
        self,
        target: Target,
        groups: Groups,
        *,
        sgld: SGLDConfig,
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
        self._tracin = tracin.TracIn()
        self._gradient_block = gradient_block
        self._last_step, self._lr_sum = 0, 0.0

    def settle(self, sgld: SGLDConfig) -> None:
        """Take settings with numbers in place of ``auto``."""
        self._sgld = sgld

    def rechunk(self, chunk_size: int) -> None:
        """Take so many samples for each forward pass from now on."""
        self._target = replace(self._target, chunk_size=chunk_size)

    def measure(self, module: nn.Module, step: int, lr_sum: float | None) -> Variables:
        """Variables of a probe's data set, ``[group, group_j]``.

        ``graddot`` and ``tracin``: positive = helpful; ``damped_influence``: negative = helpful. All are NaN where two
        groups have no pair of losses in different samples. TracIn begins with the first probe after the first training
        step, and leaves out probes with a gradient that is not finite. The damped influence function is NaN, and says
        why in its attribute ``refused``, where H + (weight_decay + localization / nbeta) I is not positive definite.

        Args:
            module: at the weights to look at.
            step: training step.
            lr_sum: learning rates of training, summed over all its steps so far; without it there is no TracIn.
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
            defined = self._groups.has_pairs
            finite = np.isfinite(dot[defined]).all()
            if lr_sum is not None and np.isfinite(lr_sum) and step > self._last_step and finite:
                total = self._tracin.add(dot, lr_sum=lr_sum - self._lr_sum, defined=defined)
                found["tracin"] = (_AXES, total, {"units": tracin.UNITS, "sign": graddot.SIGN, "pairs": self._pairs})
                self._last_step, self._lr_sum = step, lr_sum
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
        _, localization = self._sgld.numbers()
        try:
            values = damped.damped_influence(
                module,
                # Second derivatives are too rough under autocast.
                replace(self._target, forward_context=nullcontext),
                self._groups,
                nbeta=self._sgld.nbeta,
                localization=localization,
                weight_decay=self._sgld.weight_decay,
            )
        except InputError as refused:
            values = np.full((len(self._groups), len(self._groups)), np.nan)
            attributes["refused"] = str(refused)
        return _AXES, values, attributes

    def take_over(self, other: "Baselines", groups: Sequence[int]) -> None:
        """Go on with the sum of others, over an observed set that has lost samples since.

        Args:
            other: of the set before.
            groups: which of its groups these are.
        """
        state = other.state_dict()
        total = state["tracin"]["total"]
        if total is not None:
            state["tracin"] = {"total": total[list(groups)][:, list(groups)]}
        self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python."""
        return {"tracin": self._tracin.state_dict(), "last_step": self._last_step, "lr_sum": self._lr_sum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what :meth:`state_dict` saved."""
        self._tracin.load_state_dict(state["tracin"])
        self._last_step, self._lr_sum = state["last_step"], state["lr_sum"]
