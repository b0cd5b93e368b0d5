"""TracIn: gradient dot products summed over the run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from stagewise.errors import InputError

UNITS = "nats"
"""Unit of TracIn; its sign is that of the gradient dot product, positive = helpful."""


class TracIn:
    """Running sum over probes of learning rates times gradient dot products.

    To first order in the learning rate of plain SGD, this is the fall of the loss of j over the run, in nats, if each
    step had been taken on the loss of i alone. In a mean over n losses each has 1/n of that. *Positive* = helpful. With
    momentum or Adam, which move the weights differently, it is a ranking and not an amount of nats.

    A probe represents the steps since the previous one, each with its learning rate. Contributions of opposite sign
    cancel over a run: see also the gradient dot product of each probe.

    Source: Pruthi et al. 2020, TracInCP.
    """

    def __init__(self) -> None:
        """Starts before the first probe."""
        self._total: NDArray[np.float64] | None = None

    @property
    def total(self) -> NDArray[np.float64] | None:
        """``[group, group]`` so far, nats; None before the first probe."""
        return None if self._total is None else self._total.copy()

    def add(self, dot: ArrayLike, *, lr_sum: float, defined: ArrayLike | None = None) -> NDArray[np.float64]:
        """Adds one probe.

        Args:
            dot: ``[group, group]`` or ``[sample, sample]``, gradient dot products at the probe, nats^2 per squared
                weight.
            lr_sum: sum of the learning rates over the training steps since the previous probe, or since the start;
                squared weights per nat.
            defined: bool of the same shape, True where there is a product, see
                :attr:`~stagewise.influence.groups.Groups.has_pairs`; NaN is expected elsewhere. All True if None.

        Returns:
            The sum so far, nats; NaN where no product is defined.

        Raises:
            InputError: a product that is not finite where defined, or not NaN elsewhere; another shape than before; or
                a negative sum of rates.
        """
        products = np.asarray(dot, dtype=np.float64)
        there = np.ones(products.shape, dtype=bool) if defined is None else np.asarray(defined, dtype=bool)
        if there.shape != products.shape:
            raise InputError(
                f"got defined of shape {list(there.shape)}; expected {list(products.shape)} as the products; pass the "
                "has_pairs of the same groups"
            )
        if not np.isfinite(products[there]).all():
            raise InputError("got gradient dot products that are not finite; expected finite ones; leave the probe out")
        if not np.isnan(products[~there]).all():
            raise InputError(
                "got gradient dot products of groups without a pair in different samples; expected NaN for those; pass "
                "what gradient_dot returned and the has_pairs of the same groups"
            )
        if self._total is not None and products.shape != self._total.shape:
            raise InputError(
                f"got gradient dot products of shape {list(products.shape)}; expected {list(self._total.shape)} as at "
                "the probe before; keep groups and observed set for a whole run"
            )
        if not (np.isfinite(lr_sum) and lr_sum >= 0):
            raise InputError(
                f"got lr_sum={lr_sum}; expected a finite sum of learning rates >= 0; add up those of the steps made "
                "since the last probe"
            )
        self._total = lr_sum * products + (0.0 if self._total is None else self._total)
        return self._total.copy()

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain Python objects, for checkpoints opened with ``weights_only=True``."""
        return {"total": None if self._total is None else torch.from_numpy(self._total)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state saved by :meth:`state_dict`."""
        total = state["total"]
        self._total = None if total is None else total.numpy().copy()
