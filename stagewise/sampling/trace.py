"""Recorded losses of the chains of one probe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stagewise.sampling.config import EngineName

NOT_FINITE_HERE = "the loss at the training weights is not finite"
"""Reason in :attr:`Trace.dropped` if no chain was run, whatever the settings."""

NO_FACTORS = "the preconditioner's factors have no eigenvectors"
"""Beginning of the reason if no chain was run for lack of a preconditioner."""


@dataclass(frozen=True)
class Trace:
    """Recorded losses of the observed set, in nats.

    Attributes:
        loss: ``[chain, draw, sample]`` or ``[chain, draw, sample, token]``, float32; zero where masked.
        anchor_loss: ``[sample]`` or ``[sample, token]``, float32, at the training weights.
        mask: shape of ``anchor_loss``, bool; False where there is no loss.
        distance: ``[chain, draw]``, |w - w*| in weight units.
        chains: numbers of the chains that were kept, in the order of the first axis.
        dropped: number of each chain that failed, with the reason.
        step: training step of the weights.
        gradient_rms: ``[chain]``, root mean square over steps and weights of the gradient estimates, nats per weight.
        minibatch_noise: variance that minibatches add to a step over that of the injected noise, along the gradient of
            the observed losses, at the last step of the first kept chain, or of all chains of the batched engine; see
            :func:`~stagewise.sampling.heat.minibatch_heat`. Well below 1 for a chain that is not heated.
        reduced: ``[chain, draw, feature]``, output of the sampler's ``reduce`` for each draw's losses; ``loss`` is then
            ``[chain, draw, sample]``, summed over tokens, even if ``mask`` has tokens.
        engine: name of the engine that ran the chains.
    """

    loss: NDArray[np.float32]
    anchor_loss: NDArray[np.float32]
    mask: NDArray[np.bool_]
    distance: NDArray[np.float32]
    chains: tuple[int, ...]
    dropped: dict[int, str]
    step: int
    gradient_rms: NDArray[np.float64] | None = None
    minibatch_noise: float | None = None
    reduced: NDArray[np.float64] | None = None
    engine: str | None = None

    def sample_losses(self) -> NDArray[np.float64]:
        """Returns ``[chain, draw, sample]``: token losses summed over each sample."""
        loss = self.loss.astype(np.float64)
        return loss if loss.ndim == 3 else loss.sum(axis=-1)

    def mean_loss(self) -> NDArray[np.float64]:
        """Returns ``[chain, draw]``: mean over all that the mask keeps, nats (per token for token losses)."""
        axes = tuple(range(2, self.loss.ndim))
        return self.loss.sum(axis=axes, dtype=np.float64) / self.mask.sum()

    def mean_anchor_loss(self) -> float:
        """Returns the mean loss at the training weights, nats (per token for token losses)."""
        return float(self.anchor_loss.sum(dtype=np.float64) / self.mask.sum())


def merge_traces(parts: Sequence[Trace]) -> Trace:
    """Merges traces of different chains around the same weights.

    Args:
        parts: of different chains, with the same observed set, step and number of draws.
    """
    if len(parts) == 1:
        return parts[0]
    place = np.argsort([number for part in parts for number in part.chains], kind="stable")

    def joined(arrays: Sequence[NDArray]) -> NDArray:
        return np.concatenate(arrays)[place]

    reduced = [part.reduced for part in parts if part.reduced is not None]
    rms = [part.gradient_rms for part in parts if part.gradient_rms is not None]
    measured = [part for part in parts if part.minibatch_noise is not None]
    # With one chain at a time, each process measures its first kept chain; only the first of all counts.
    first = min(measured, key=lambda part: part.chains[:1], default=None)
    noise = None if first is None else first.minibatch_noise
    if len(measured) > 1 and first is not None and first.engine == EngineName.batched:  # the mean over all of them
        noise = float(
            np.average([trace.minibatch_noise for trace in measured], weights=[len(trace.chains) for trace in measured])
        )
    return replace(
        parts[0],
        loss=joined([part.loss for part in parts]),
        distance=joined([part.distance for part in parts]),
        chains=tuple(sorted(number for part in parts for number in part.chains)),
        dropped=dict(sorted((number, why) for part in parts for number, why in part.dropped.items())),
        gradient_rms=joined(rms) if rms else None,
        minibatch_noise=noise,
        reduced=joined(reduced) if reduced else None,
    )
