"""Initial weights of the deep linear network: small Gaussian ones, or ones for which the closed forms are exact."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike

from stagewise.errors import require
from stagewise.toy.descent import Weights
from stagewise.toy.modes import Modes


def gaussian_weights(
    num_items: int, num_properties: int, *, hidden: int, std: float, generator: torch.Generator
) -> Weights:
    """Draws independent Gaussian weights.

    Args:
        num_items: columns of the first layer.
        num_properties: rows of the second layer.
        hidden: hidden units.
        std: standard deviation of each weight; small, so that the modes are learned one after the other.
        generator: of the random numbers; on the CPU.

    Returns:
        One network, float64.

    Raises:
        InputError: a size below 1, or ``std`` that is not above 0.
    """
    for name, size in (("num_items", num_items), ("num_properties", num_properties), ("hidden", hidden)):
        require(size >= 1, name, size, "1 or more", "every layer needs a unit")
    require(0 < std < math.inf, "std", std, "a number above 0", "1e-3 is usual: from 0 nothing is learned")
    first = torch.randn(hidden, num_items, generator=generator, dtype=torch.float64)
    second = torch.randn(num_properties, hidden, generator=generator, dtype=torch.float64)
    return Weights(std * first, std * second)


def aligned_weights(modes: Modes, hidden: int, *, initial: ArrayLike, generator: torch.Generator) -> Weights:
    """Returns weights that contain only the modes, each at a small strength.

    W1 = R sqrt(a0) V^T and W2 = U sqrt(a0) R^T, with R random and orthonormal. They are balanced, W1 W1^T = W2^T W2,
    and aligned with the data, so that the modes evolve independently.

    Source: Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks, ICLR 2014.

    Args:
        modes: of the data.
        hidden: hidden units, at least as many as modes.
        initial: a0, one number for all modes or ``[mode]``, above 0.
        generator: of R; on the CPU.

    Returns:
        One network, float64.

    Raises:
        InputError: too few hidden units, or ``initial`` is not above 0.
    """
    count = len(modes.strengths)
    require(hidden >= count, "hidden", hidden, f"as many as modes, {count}, or more", "widen the network")
    strengths = np.asarray(initial, dtype=np.float64)
    require(
        strengths.shape in {(), (count,)} and bool(np.all((strengths > 0) & np.isfinite(strengths))),
        "initial",
        initial,
        f"one number above 0, or {count} of them",
        "1e-5 is small",
    )
    noise = torch.randn(hidden, count, generator=generator, dtype=torch.float64)
    turned = torch.linalg.qr(noise).Q * torch.from_numpy(np.sqrt(np.broadcast_to(strengths, count)))
    return Weights(turned @ torch.tensor(modes.right).T, torch.tensor(modes.left) @ turned.T)
