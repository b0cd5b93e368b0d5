"""Estimators of the gradient that drives a chain: plain, control variates, tilted."""

from torch import Tensor

from stagewise.sampling.config import Drift
from stagewise.sampling.engine import Engine


class DriftGradient:
    """Gradient ``[chain, weight]`` of L at the chains' weights, estimated from one minibatch for each chain.

    With gm the minibatch gradient: plain gm(w); control variates gm(w) - gm(w*) + the full gradient at w*; tilted
    gm(w) - gm(w*), which leaves out the slope at w*, so that the chain fluctuates around w* instead of sliding down.
    Weight decay adds the gradient of its penalty, of which tilting leaves out the slope too.

    Source: control variates, Baker et al. 2019.
    """

    def __init__(self, drift: Drift, engine: Engine, *, weight_decay: float = 0.0, slope: Tensor | None = None) -> None:
        """Set up for the chains of an engine.

        Args:
            drift: which estimator.
            engine: evaluates the chains.
            weight_decay: coefficient of |w|^2 / 2 in the mean loss.
            slope: full gradient of L at w*, ``[weight]``. Control variates need it; so does tilting where the minibatch
                is the whole sampling set, which is then not evaluated twice.
        """
        self._drift = drift
        self._engine = engine
        self._weight_decay = weight_decay
        self._slope = slope

    def __call__(self, rows: Tensor | None) -> Tensor:
        """Estimate from minibatches at the chains' present weights.

        Args:
            rows: samples ``[chain, sample]``; None is the whole sampling set.
        """
        gradient = self._engine.gradient(rows)
        if self._drift is not Drift.plain and rows is not None:
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
