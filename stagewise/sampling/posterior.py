"""Local posterior: the distribution that chains sample."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LocalPosterior:
    """p(w) ~ exp(-nbeta (L(w) + weight_decay / 2 |w|^2) - localization / 2 |w - w*|^2), L the mean loss.

    Attributes:
        nbeta: inverse temperature times the number of samples.
        localization: precision of the Gaussian around w*.
        weight_decay: of the run, if part of the target.
    """

    nbeta: float
    localization: float
    weight_decay: float = 0.0

    @property
    def precision(self) -> float:
        """Precision of the quadratic terms: localization + nbeta weight_decay."""
        return self.localization + self.nbeta * self.weight_decay

    @property
    def damping(self) -> float:
        """The same per unit of nbeta, nats per squared weight."""
        return self.localization / self.nbeta + self.weight_decay
