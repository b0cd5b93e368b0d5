"""Gradient estimators of a chain: plain, control variates, tilted."""

import torch
from torch import Tensor

from stagewise.sampling.config import Drift
from stagewise.sampling.engines.engine import Engine
from stagewise.sampling.streams import Minibatches

KEPT_BYTES = 2**28
"""Memory limit for minibatch gradients at w*, a quarter of a GiB."""


def anchor_gradients(engine: Engine, choices: Tensor) -> Tensor:
    """Returns the gradient of each minibatch of a partition at w*, ``[minibatch, weight]``, nats per weight.

    Args:
        engine: evaluates as many minibatches at once as it has chains.
        choices: samples ``[minibatch, sample]``.
    """
    chains = len(engine.state)
    kept = engine.anchor.new_empty(len(choices), len(engine.anchor))
    for start in range(0, len(choices), chains):
        numbers = torch.arange(start, start + chains) % len(choices)
        count = min(chains, len(choices) - start)
        kept[start : start + count] = engine.anchor_gradient(choices[numbers])[:count]
    return kept


class DriftGradient:
    """Gradient ``[chain, weight]`` of L at the chains' weights, estimated from one minibatch per chain.

    With gm the minibatch gradient, ``plain`` is gm(w), and ``control_variate`` gm(w) - gm(w*) + the full gradient at
    w*. ``tilted`` is gm(w) - gm(w*), without the slope at w*, so that the chain fluctuates around w* instead of sliding
    down. Weight decay adds the gradient of its penalty, tilted likewise.

    Source: control variates, Baker et al. 2019.
    """

    def __init__(
        self,
        drift: Drift,
        engine: Engine,
        *,
        weight_decay: float = 0.0,
        slope: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> None:
        """Sets up for the chains of an engine.

        Args:
            drift: estimator; not ``auto``.
            engine: evaluates the chains.
            weight_decay: coefficient of |w|^2 / 2 in the mean loss.
            slope: full gradient of L at w*, ``[weight]``. Required by control variates, and by tilting with full
                batches, where it is evaluated once.
            kept: minibatch gradients ``[minibatch, weight]``, see :func:`anchor_gradients`: a step then takes one
                gradient instead of two, and minibatches must have numbers.
        """
        self._drift = drift
        self._engine = engine
        self._weight_decay = weight_decay
        self._slope = slope
        self._kept = kept

    def __call__(self, minibatches: Minibatches) -> Tensor:
        """Estimates the gradient at the chains' current weights from minibatches."""
        rows, numbers = minibatches
        gradient = self._engine.gradient(rows)
        if self._drift is not Drift.plain and rows is not None:
            if self._kept is not None and numbers is not None:
                gradient -= self._kept[numbers.to(self._kept.device)]
            else:
                gradient -= self._engine.anchor_gradient(rows)
            if self._drift is Drift.control_variate:
                gradient += self._known_slope()
        elif self._drift is Drift.tilted:
            gradient -= self._known_slope()
        if self._weight_decay:
            gradient.add_(self._engine.state, alpha=self._weight_decay)
            if self._drift is Drift.tilted:
                gradient.sub_(self._engine.anchor, alpha=self._weight_decay)
        return gradient

    def _known_slope(self) -> Tensor:
        assert self._slope is not None
        return self._slope
