"""Interface of engines: the loss and its gradient at the weights of the chains that run at once."""

from typing import Protocol

from torch import Tensor

from stagewise.losses.contract import Losses


class Engine(Protocol):
    """Evaluates some chains at once. Engines differ in speed; their draws agree up to float rounding.

    Attributes:
        state: ``[chain, weight]``, the chains' weights, moved in place by the caller.
        anchor: ``[weight]``, the training weights w*.
    """

    state: Tensor
    anchor: Tensor

    def moved(self) -> None:
        """Must be called after ``state`` has changed, before the next evaluation."""

    def gradient(self, rows: Tensor | None) -> Tensor:
        """Returns the gradient ``[chain, weight]`` of each chain's minibatch mean loss at its weights.

        Args:
            rows: samples of the sampling set ``[chain, sample]``; None takes all of it, for every chain.
        """

    def anchor_gradient(self, rows: Tensor | None) -> Tensor:
        """Returns the gradient at w*, ``[chain, weight]``."""

    def observed_gradient(self) -> Tensor:
        """Returns the gradient ``[chain, weight]`` of the mean loss of the observed set at each chain's weights."""

    def losses(self) -> Tensor:
        """Returns observed losses at each chain's weights, ``[chain, sample(, token)]``, zero where masked."""

    def anchor_losses(self) -> Losses:
        """Returns the losses of the observed set at w*."""
