"""The curvature that a sampler meets at one checkpoint, and settings made from it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples, take
from stagewise.errors import InputError
from stagewise.isolation import untouched, with_weights
from stagewise.losses import LossFn, evaluate
from stagewise.sampling.calibration import propose
from stagewise.sampling.config import RMSprop, SGLDConfig
from stagewise.sampling.curvature import Curvature, Root, measure_curvature
from stagewise.sampling.kernel import MeanSquare
from stagewise.sampling.weights import FlatWeights

ForwardContext = Callable[[], AbstractContextManager]

FINE_SAMPLES = 256
"""Samples to measure on where the figures count."""

_MOST_GRADIENTS = 32


@dataclass(frozen=True)
class Measurement:
    """Curvature at one checkpoint.

    Attributes:
        plain: of the Hessian H.
        preconditioned: of P^(1/2) (nbeta H + localization) P^(1/2); None without a preconditioner, or where it is not
            known before the chain runs.
    """

    plain: Curvature
    preconditioned: Curvature | None = None

    def as_lists(self) -> tuple[list[Curvature], list[Curvature]]:
        """As :func:`stagewise.sampling.findings.check_settings` takes them."""
        return [self.plain], [] if self.preconditioned is None else [self.preconditioned]


@dataclass(frozen=True)
class Landscape:
    """Measures curvature for a sampler, always on the same samples and with the same start vector.

    Attributes:
        loss_fn: per-sample loss.
        sampling: batch that drives the chains, on the module's device.
        num_samples: the first so many of them are measured on. Few samples overstate both ends (on average: the
            largest eigenvalue is convex in the matrix), so that what passes on few passes on all.
        tolerance: of both ends, relative to the norm of H.
        num_vectors: Lanczos vectors held at once, each as large as the weights.
        seed: of start vector and minibatches.
        forward_context: entered around each forward pass; not autocast.
    """

    loss_fn: LossFn
    sampling: Batch
    num_samples: int = 64
    tolerance: float = 0.05
    num_vectors: int = 20
    seed: int = 0
    forward_context: ForwardContext = nullcontext

    def measure(self, module: nn.Module, config: SGLDConfig, step: int = 0) -> Measurement:
        """Measure at the weights that ``module`` has now, which is left as it was.

        The preconditioned curvature is left out while ``config.localization`` is ``auto``.

        Raises:
            InputError, FloatingPointError, ArithmeticError: as :func:`measure_curvature` does.
        """
        plain = self._curvature(module, config, step, None)
        root = None if config.localization == "auto" else self._root(module, config)
        return Measurement(plain, None if root is None else self._curvature(module, config, step, root))

    def _root(self, module: nn.Module, config: SGLDConfig) -> Root | None:
        """R of the preconditioner that the first steps of a chain take; None without one.

        Raises:
            InputError: ``lr`` is ``auto`` and the preconditioner is of a kind that is not known before the chain runs.
        """
        if isinstance(config.preconditioner, RMSprop):
            return self._rmsprop_root(module, config)
        if config.preconditioner is not None and config.lr == "auto":
            raise InputError(
                f"got lr='auto' with preconditioner {type(config.preconditioner).__name__}; expected a number, or "
                "RMSprop, or none; set lr"
            )
        return None

    def _curvature(self, module: nn.Module, config: SGLDConfig, step: int, root: Root | None) -> Curvature:
        matrix = {} if root is None else {"nbeta": config.nbeta, "localization": float(config.localization)}
        return measure_curvature(
            module,
            self.loss_fn,
            take(self.sampling, slice(0, self.num_samples)),
            parameters=config.parameters,
            root=root,
            # A minibatch at a time: second derivatives take a few times the memory of a training step.
            chunk_size=config.batch_size,
            tolerance=self.tolerance,
            num_vectors=self.num_vectors,
            seed=self.seed,
            step=step,
            forward_context=self.forward_context,
            **matrix,
        )

    def _rmsprop_root(self, module: nn.Module, config: SGLDConfig) -> Root:
        """R = P^(1/2) at the start of the burn-in: v from minibatch gradients at w*.

        Gradients grow as the chain leaves w*, and P falls; but the first steps are taken with this P.
        """
        assert isinstance(config.preconditioner, RMSprop)
        weights = FlatWeights(module, config.parameters)
        adapting = MeanSquare(config.preconditioner, weights.state)
        generator = np.random.default_rng(self.seed)
        size = num_samples(self.sampling)

        def body() -> Tensor:
            for _ in range(min(config.num_burnin_steps, _MOST_GRADIENTS)):
                index = generator.permutation(size)[: config.batch_size]
                with self.forward_context():
                    losses = evaluate(self.loss_fn, module, take(self.sampling, torch.from_numpy(index)))
                adapting.update(weights.gradient(losses.mean()))
            return adapting.preconditioner().sqrt()

        with untouched(module), torch.enable_grad():
            root = with_weights(module, weights.leaves, body)
        return lambda vector: root * vector


def settle(
    config: SGLDConfig, landscape: Landscape, module: nn.Module, *, growth: float = 1.0, step: int = 0
) -> tuple[SGLDConfig, Measurement]:
    """Replace ``auto`` in the settings by numbers that suit the weights which ``module`` has now.

    Args:
        config: the settings; numbers among them are kept.
        landscape: what to measure on.
        module: at the checkpoint; left as it was.
        growth: factor on the measured curvature, for later checkpoints, see :func:`propose`.
        step: training step of the checkpoint.

    Returns:
        The settings, with numbers, and the curvature at the checkpoint.

    Raises:
        InputError, FloatingPointError, ArithmeticError: as :func:`measure_curvature` and :func:`propose` do.
    """
    measured = landscape.measure(module, config, step)
    if config.localization == "auto":
        proposal = propose(replace(config, lr="auto"), [measured.plain], growth=growth, keep=True)
        config = replace(config, localization=proposal.localization)
        if config.preconditioner is not None:
            measured = landscape.measure(module, config, step)
    if config.lr == "auto":
        steepest = []
        if measured.preconditioned is not None:
            # Only H is expected to grow, not the localization beside it.
            grown = (
                measured
                if growth == 1
                else landscape.measure(module, replace(config, nbeta=growth * config.nbeta), step)
            )
            assert grown.preconditioned is not None
            steepest = [grown.preconditioned.lam_max]
        config = replace(config, lr=propose(config, [measured.plain], growth=growth, steepest=steepest, keep=True).lr)
    return config, measured
