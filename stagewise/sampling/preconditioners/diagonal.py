"""Diagonal preconditioners: constant, or adapted to gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import at_least, more_than, within


class Preconditioner(Protocol):
    """Symmetric positive definite matrix P on flat weights; leading axes are chains."""

    def times(self, vector: Tensor) -> Tensor:
        """Returns P x, ``[..., weight]``."""

    def root_times(self, vector: Tensor) -> Tensor:
        """Returns R x with R R^T = P, ``[..., weight]``; R need not be symmetric."""


class Diagonal:
    """Preconditioner P = diag(d), d positive, ``[weight]`` or ``[chain, weight]``."""

    def __init__(self, diagonal: Tensor) -> None:
        self.diagonal = diagonal
        self._root = diagonal.sqrt()

    def times(self, vector: Tensor) -> Tensor:
        """See :class:`Preconditioner`."""
        return vector * self.diagonal

    def root_times(self, vector: Tensor) -> Tensor:
        """See :class:`Preconditioner`."""
        return vector * self._root


@dataclass(frozen=True)
class RMSprop:
    """Diagonal preconditioner P = 1 / (sqrt(v) + eps), v a running mean square of the minibatch gradient.

    By default v adapts during the burn-in and is then frozen: P is constant, the chain's stationary law is exactly the
    target, and no Gamma term is needed. Published runs never freeze it; with a P that follows the gradients the
    stationary variance is off by about 10 % in small problems. To reproduce devinterp 2, use
    ``RMSprop(frozen=False, bias_correction=False)``; for Hitchcock and Hoogland, ``RMSprop(frozen=False, initial=1)``.

    Attributes:
        alpha: decay of v per step.
        eps: floor of sqrt(v), in the unit of the gradient (nats per weight). Where gradients are far below it, P is the
            constant 1 / eps.
        frozen: adapt during the burn-in only; False adapts at every step.
        initial: v at the start, squared unit of the gradient.
        bias_correction: divide v by 1 - alpha^steps, which is exact if v starts at 0.

    Raises:
        InputError: alpha outside [0, 1), eps not positive, or initial negative.

    Source: Li et al. 2016 (preconditioned SGLD); Hitchcock and Hoogland, arXiv 2507.21449.
    """

    alpha: Annotated[float, within(0, 1, "0.99 is usual", with_high=False)] = 0.99
    eps: Annotated[float, more_than(0, "0.1 is usual")] = 0.1
    frozen: bool = True
    initial: Annotated[float, at_least(0, "0 or 1 is usual")] = 0.0
    bias_correction: bool = True

    def __post_init__(self) -> None:
        settle_fields(self)


class RunningRMSprop:
    """Running mean square v of the gradients of each chain."""

    def __init__(self, settings: RMSprop, like: Tensor) -> None:
        """Starts at ``settings.initial``, in the shape of ``like`` (``[weight]`` or ``[chain, weight]``)."""
        self._settings = settings
        self._mean_square = torch.full_like(like, settings.initial)
        self._steps = 0

    def update(self, gradient: Tensor) -> None:
        """Adds one gradient per chain."""
        alpha = self._settings.alpha
        self._mean_square.mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        self._steps += 1

    def preconditioner(self) -> Diagonal:
        """Returns the current P; with ``initial`` 0 it is 1 / eps before the first gradient."""
        corrected = self._settings.bias_correction and self._steps
        scale = 1 - self._settings.alpha**self._steps if corrected else 1.0
        return Diagonal(1 / ((self._mean_square / scale).sqrt() + self._settings.eps))


@dataclass(frozen=True)
class AdamMoments:
    """Frozen diagonal preconditioner from the training optimizer's second moments: no burn-in, no extra gradients.

    P = s / (sqrt(v) + eps s), v Adam's bias-corrected second moments and s their root mean over the weights that move.
    P is near 1 for a typical weight and at most 1 / eps, so that ``lr`` keeps its meaning without preconditioner.

    Attributes:
        eps: floor of sqrt(v) relative to s; weights whose gradients are much smaller move 1 / eps times faster.

    Raises:
        InputError: eps not positive.
    """

    eps: Annotated[float, more_than(0, "0.1 is usual")] = 0.1

    def __post_init__(self) -> None:
        settle_fields(self)

    def build(
        self,
        names: Mapping[str, Tensor],
        second_moments: Mapping[str, Tensor],
        like: Tensor,
        *,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> Diagonal:
        """Returns P over the flat weights.

        Args:
            names: moving entries of each parameter, in order, of any shape.
            second_moments: v of these entries, by parameter name; missing ones are zero (no gradient yet). If empty, as
                before the first optimizer step, P is 1.
            like: flat weights ``[weight]``, for device and type.
            total: sums over the processes that hold the other weights; None if ``like`` has all.
        """
        parts = [second_moments.get(name, torch.zeros_like(value)) for name, value in names.items()]
        moments = torch.cat([part.detach().reshape(-1).to(like) for part in parts])
        if total is None:
            scale = moments.mean().sqrt()
        else:
            added, number = total(torch.stack([moments.sum().double(), moments.new_tensor(len(moments)).double()]))
            scale = (added / number).sqrt().to(moments.dtype)
        if not scale > 0:
            return Diagonal(torch.ones_like(like))
        return Diagonal(scale / (moments.sqrt() + self.eps * scale))
