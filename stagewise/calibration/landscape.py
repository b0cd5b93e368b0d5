"""The curvature that a sampler meets at one checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from stagewise.batches import num_samples, take
from stagewise.calibration.curvature import Curvature, Root, measure_curvature
from stagewise.isolation import untouched, with_weights
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.diagonal import AdamMoments, Preconditioner, RMSprop, RunningRMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.preconditioners.ekfac_factors import ekfac_preconditioner
from stagewise.sampling.selection import Selection
from stagewise.sampling.target import Target
from stagewise.sampling.weights import FlatWeights

FINE_SAMPLES = 256
"""Samples to measure on where the figures count."""

_MOST_GRADIENTS = 32


@dataclass(frozen=True)
class Measurement:
    """Curvature at one checkpoint.

    Attributes:
        plain: of the Hessian H of L, weight decay of the target included.
        preconditioned: of P^(1/2) (nbeta H + localization) P^(1/2); None without a preconditioner, or while
            localization is not known.
    """

    plain: Curvature
    preconditioned: Curvature | None = None

    def as_lists(self) -> tuple[list[Curvature], list[Curvature]]:
        """As :func:`stagewise.calibration.findings.check_settings` takes them."""
        return [self.plain], [] if self.preconditioned is None else [self.preconditioned]

    def steepest(self, config: SGLDConfig) -> float | None:
        """Largest curvature that a step meets: nbeta lam_max + localization, or that of the preconditioned chain.

        Args:
            config: the sampler of the measurement, with a number for ``localization``.

        Returns:
            The curvature, whose product with ``lr`` is below 4 for a stable step; None with a preconditioner whose
            curvature was not measured.
        """
        if self.preconditioned is not None:
            return self.preconditioned.lam_max
        if config.preconditioner is not None:
            return None
        return config.nbeta * max(0.0, self.plain.lam_max) + config.posterior.localization


@dataclass(frozen=True)
class Landscape:
    """Measures curvature for a sampler, always on the same samples and with the same start vector.

    Attributes:
        target: loss, the sampling set, which drives the chains, and what moves, where the sampler's settings do not say
            it. No autocast in ``forward_context``. The observed set is not looked at.
        num_samples: the first so many of them are measured on. Few samples overstate both ends (on average: the
            largest eigenvalue is convex in the matrix), so that what passes on few passes on all.
        tolerance: of both ends, relative to the norm of H.
        num_vectors: Lanczos vectors held at once, each as large as the weights.
        seed: of start vector and minibatches.
        second_moments: Adam's, by parameter name, for the preconditioner that uses them.
        population: samples of the whole sampling set, which chains draw their minibatches from; None if ``target`` has
            all of them.
    """

    target: Target
    num_samples: int = 64
    tolerance: float = 0.05
    num_vectors: int = 20
    seed: int = 0
    second_moments: Mapping[str, Tensor] = field(default_factory=dict)
    population: int | None = None

    def measure(
        self, module: nn.Module, config: SGLDConfig, step: int = 0, *, plain: Curvature | None = None
    ) -> Measurement:
        """Measure at the weights that ``module`` has now, which is left as it was.

        The preconditioned curvature is left out while ``config.localization`` is ``auto``.

        Args:
            module: at the checkpoint.
            config: whose target and preconditioner count.
            step: training step of the checkpoint.
            plain: curvature without preconditioner, where it has been measured already; taken over.

        Raises:
            InputError, FloatingPointError, ArithmeticError: as :func:`measure_curvature` does.
        """
        if plain is None:
            plain = self._curvature(module, config, step, None)
        preconditioner = None if config.localization == "auto" else self.preconditioner(module, config)
        if preconditioner is None:
            return Measurement(plain)
        return Measurement(plain, self._curvature(module, config, step, preconditioner.root_times))

    def preconditioner(self, module: nn.Module, config: SGLDConfig) -> Preconditioner | None:
        """P of the first steps of a chain, once ``config.localization`` is a number; None without one."""
        settings = config.preconditioner
        if isinstance(settings, RMSprop):
            return self._rmsprop(settings, module, config)
        if isinstance(settings, AdamMoments):
            weights = FlatWeights(module, self.selection(config))
            moments = weights.gather(self.second_moments)
            return settings.build(weights.gather(weights.leaves), moments, weights.anchor)
        if isinstance(settings, EKFAC):
            # The whole set at once.
            target = replace(self.target.moved_by(config), chunk_size=None)
            return ekfac_preconditioner(settings, module, target=target, posterior=config.posterior)
        return None

    def selection(self, config: SGLDConfig) -> Selection:
        """Entries of the parameters that the chains move."""
        return self.target.moved_by(config).selection

    def _curvature(self, module: nn.Module, config: SGLDConfig, step: int, root: Root | None) -> Curvature:
        # Weight decay adds to every direction of H.
        posterior = LocalPosterior(1.0, 0.0, config.weight_decay) if root is None else config.posterior
        target = replace(
            self.target.moved_by(config),
            sampling=take(self.target.driving, slice(0, self.num_samples)),
            # A minibatch at a time: second derivatives take a few times the memory of a training step.
            chunk_size=config.batch_size,
        )
        found = measure_curvature(
            module,
            target,
            root=root,
            posterior=posterior,
            tolerance=self.tolerance,
            num_vectors=self.num_vectors,
            seed=self.seed,
        )
        return replace(found, step=step)

    def _rmsprop(self, settings: RMSprop, module: nn.Module, config: SGLDConfig) -> Preconditioner:
        """P from minibatch gradients at w*, as many as the burn-in takes, up to 32.

        Gradients grow as the chain leaves w*, and P falls; but the first steps are taken with a P like this.
        """
        weights = FlatWeights(module, self.selection(config))
        adapting = RunningRMSprop(settings, weights.state)
        generator = np.random.default_rng(self.seed)
        size = num_samples(self.target.driving)

        def body() -> Preconditioner:
            for _ in range(min(config.burnin_steps or _MOST_GRADIENTS, _MOST_GRADIENTS)):
                index = generator.permutation(size)[: config.batch_size]
                losses = self.target.evaluate(module, take(self.target.driving, torch.from_numpy(index)))
                adapting.update(weights.gradient(losses.mean()))
            return adapting.preconditioner()

        with untouched(module), torch.enable_grad():
            return with_weights(module, weights.leaves, body)
