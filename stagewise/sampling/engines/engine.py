"""Interface of engines: the loss and its gradient at the weights of the chains that run at once."""

from typing import Protocol

from torch import Tensor

from stagewise.losses.contract import Losses


class Engine(Protocol):
    """Evaluator of one or several chains. Engines differ in speed; their draws agree up to float rounding.

    Attributes:
        state: ``[chain, weight]``, the chains' weights, which the caller moves in place.
        anchor: ``[weight]``, the training weights w*.
    """

    state: Tensor
    anchor: Tensor

    def moved(self) -> None:
        """Updates the engine after a change of ``state``; must be called before the next evaluation."""

    def gradient(self, rows: Tensor | None) -> Tensor:
        """Returns the gradient ``[chain, weight]`` of each chain's minibatch mean loss at its weights.

        Args:
            rows: samples of the sampling set ``[chain, sample]``; None takes the whole set for every chain.
        """

    def anchor_gradient(self, rows: Tensor | None) -> Tensor:
        """Returns the gradient ``[chain, weight]`` of each chain's minibatch mean loss at w*."""

    def observed_gradient(self) -> Tensor:
        """Returns the gradient ``[chain, weight]`` of the mean loss of the observed set at each chain's weights."""

    def losses(self) -> Tensor:
        """Returns the observed losses ``[chain, sample(, token)]`` at each chain's weights, zero where masked."""

    def anchor_losses(self) -> Losses:
        """Returns the losses of the observed set at w*."""
