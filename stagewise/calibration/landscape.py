"""Curvature that a sampler meets at one checkpoint."""

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
"""Number of samples for measurements that lead to settings or findings."""

_MOST_GRADIENTS = 32


@dataclass(frozen=True)
class Measurement:
    """Curvature at one checkpoint.

    Attributes:
        plain: of the Hessian H of L, including weight decay of the target.
        preconditioned: of P^(1/2) (nbeta H + localization) P^(1/2); None without a preconditioner, or while
            localization is unknown.
    """

    plain: Curvature
    preconditioned: Curvature | None = None

    def as_lists(self) -> tuple[list[Curvature], list[Curvature]]:
        """Returns the arguments of :func:`stagewise.calibration.findings.check_settings`."""
        return [self.plain], [] if self.preconditioned is None else [self.preconditioned]

    def steepest(self, config: SGLDConfig) -> float | None:
        """Returns the largest curvature that a step meets: nbeta lam_max + localization, or the preconditioned one.

        Args:
            config: the sampler of the measurement, with a number for ``localization``.

        Returns:
            The curvature; a step is stable if ``lr`` times it is below 4. None with a preconditioner whose curvature
            was not measured.
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
        target: loss, sampling set, and the moving weights unless the sampler's settings name them. No autocast in
            ``forward_context``. The observed set is not used.
        num_samples: number of samples to measure on, the first of the sampling set. Few samples overstate both ends (on
            average: the largest eigenvalue is convex in the matrix): settings that pass on few pass on all.
        tolerance: of both ends, relative to the norm of H.
        num_vectors: Lanczos vectors held at once, each as large as the weights.
        seed: of the start vector and the minibatches.
        second_moments: of Adam, by parameter name, for ``AdamMoments``.
        population: size of the whole sampling set, from which chains draw minibatches; None if ``target`` has all of
            it.
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
        """Measures the curvature at the module's current weights; the module is left unchanged.

        The preconditioned curvature is omitted while ``config.localization`` is ``auto``.

        Args:
            module: at the checkpoint.
            config: the sampler; its target and preconditioner matter.
            step: training step of the checkpoint.
            plain: curvature without preconditioner, if already measured; reused.

        Raises:
            InputError, FloatingPointError, ArithmeticError: as :func:`measure_curvature`.
        """
        if plain is None:
            plain = self._curvature(module, config, step, None)
        preconditioner = None if config.localization == "auto" else self.preconditioner(module, config)
        if preconditioner is None:
            return Measurement(plain)
        return Measurement(plain, self._curvature(module, config, step, preconditioner.root_times))

    def preconditioner(self, module: nn.Module, config: SGLDConfig) -> Preconditioner | None:
        """Returns P of a chain's first steps, None without a preconditioner; ``localization`` must be a number."""
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
        """Returns the selection of weights that the chains move."""
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
        """Returns P from minibatch gradients at w*, as many as burn-in steps, up to 32.

        Gradients grow and P falls as the chain leaves w*, but its first steps use a P like this.
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
