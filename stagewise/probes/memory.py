"""Memory of each product of a probe, estimated in advance and checked against the limit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stagewise.errors import InputError
from stagewise.influence.baselines.graddot import VECTORS
from stagewise.probes.config import ProbeConfig
from stagewise.probes.references import MAX_CACHED
from stagewise.sampling.config import SGLDConfig

_GIB = 2**30
_FLOAT64 = 8
_SCRATCH = 8
"""Copies of a probe's reduced draws during its measurement, besides those kept as references (measured: 4 to 6)."""
_CONTROL = 4
"""Copies of the control's reduced draws, and of the probe's draws compared with them."""
_COPIES_MOVING = 3
"""Copies of the data from another process while they are received and decoded (measured)."""
_SAMPLE_MATRICES = 50
"""Matrices over samples: four parts of influence, correlation and both errors, and the jackknife's work space."""
_LEAST_SHARE = 1 / 16
"""Share of the limit reserved for the gradients of groups."""

_ADVICE = {
    "trace": "set save_trace to false, observe fewer samples, or draw less",
    "sample x sample": "observe fewer samples",
    "group x group": "observe fewer samples, draw less, or give fewer groups",
    "group x position": "ask for fewer position_bins",
    "token x token": "choose fewer token_samples, observe shorter sequences, or run fewer chains",
}


@dataclass(frozen=True, kw_only=True)
class ProbeSize:
    """Numbers that determine the memory of a probe.

    Attributes:
        num_samples: of the observed set.
        num_chains: chains, whether sequential or batched.
        num_draws: of each chain.
        num_tokens: losses of a sample, including masked ones; 1 for losses without tokens.
        num_groups: number of groups, at least 1.
        num_positions: position bins.
        num_token_samples: sequences chosen for token x token.
        save_trace: True if every draw's losses are kept.
        num_processes: processes that share the chains; the first one gathers all draws.
        control: True if the chains are run once more without the loss; their draws are always reduced.
    """

    num_samples: int
    num_chains: int
    num_draws: int
    num_tokens: int = 1
    num_groups: int = 1
    num_positions: int = 0
    num_token_samples: int = 0
    save_trace: bool = True
    num_processes: int = 1
    control: bool = False


def memory_needed(size: ProbeSize) -> dict[str, float]:
    """Returns the peak memory of each product of a probe, GiB.

    Excludes the chains' weights and passes. Only ``trace``, the masks of groups and token x token depend on the length
    of sequences.

    Args:
        size: of the probe.

    Returns:
        ``trace``: draws in float32 and, for diagnostics, in float64. ``sample x sample``, ``group x group`` (with the
        reduced draws of the reference probes, which it shares with ``group x position``), ``group x position``,
        ``token x token``: sums of 8 bytes for each chain and pair of tokens, and results. Only products that are
        enabled.
    """
    draws = size.num_chains * size.num_draws
    kept = size.num_samples * (size.num_tokens if size.save_trace else 1)
    losses = size.num_samples * size.num_tokens
    features = _FLOAT64 * (MAX_CACHED + _SCRATCH + _CONTROL * size.control) * draws * size.num_samples
    masks = (_FLOAT64 + 1) * losses
    rows = size.num_token_samples * size.num_tokens
    moving = 0 if size.num_processes == 1 else _COPIES_MOVING * math.ceil(size.num_chains / size.num_processes)
    moving_draws = moving * size.num_draws
    features += _FLOAT64 * moving_draws * size.num_samples * (1 + size.control)
    needed = {
        "trace": 12 * draws * kept + 4 * moving_draws * kept,
        "sample x sample": _FLOAT64 * (_SAMPLE_MATRICES + 2 * size.num_chains) * size.num_samples**2,
        "group x group": (features + masks) * (1 + size.num_groups),
        "group x position": (features + masks) * size.num_positions,
        "token x token": (_FLOAT64 * (size.num_chains + moving) + 48) * rows**2
        + _FLOAT64 * (3 * size.num_chains + 50) * 128 * rows,
    }
    return {name: total / _GIB for name, total in needed.items() if total > 0}


def check_memory(
    config: ProbeConfig, sgld: SGLDConfig, *, loss_shape: Sequence[int], num_groups: int, num_processes: int = 1
) -> float:
    """Checks the memory against the limit; the error lists the products and a remedy for the largest.

    Args:
        config: products and limit.
        sgld: number of draws.
        loss_shape: of the losses of the observed set, ``[sample]`` or ``[sample, token]``.
        num_groups: number of groups, at least 1.
        num_processes: processes that share the chains.

    Returns:
        Memory of all products, GiB.

    Raises:
        InputError: the products need more than the limit; products of tokens with losses ``[sample]``; or unknown
            samples.
    """
    size, has_tokens = loss_shape[0], len(loss_shape) > 1
    bins, chosen = config.position_bins, config.token_samples or []
    if not has_tokens and (bins is not None or chosen):
        raise InputError(
            "got position_bins or token_samples with losses [sample]; expected losses [sample, token]; leave them out, "
            "or return the losses of tokens"
        )
    if chosen and max(chosen) >= size:
        raise InputError(
            f"got token_samples={chosen} of {size} observed samples; expected positions below {size}; choose others"
        )
    needed = memory_needed(
        ProbeSize(
            num_samples=size,
            num_tokens=loss_shape[1] if has_tokens else 1,
            num_chains=sgld.num_chains,
            num_draws=sgld.num_draws,
            num_groups=num_groups,
            num_positions=0 if bins is None else bins if isinstance(bins, int) else len(bins) - 1,
            num_token_samples=len(chosen),
            save_trace=config.save_trace,
            num_processes=num_processes,
            control=config.control_every is not None,
        )
    )
    total = sum(needed.values())
    if total <= config.memory_limit_gib:
        return total
    largest = sorted(needed, key=lambda name: -needed[name])
    listed = ", ".join(f"{name} {needed[name]:.2g}" for name in largest if needed[name] >= 0.01 * total)
    raise InputError(
        f"got an observed set of {size} samples ({math.prod(loss_shape)} losses) x {sgld.num_chains * sgld.num_draws} "
        f"draws, which needs about {total:.2g} GiB ({listed}); expected at most "
        f"memory_limit_gib={config.memory_limit_gib:g}; {_ADVICE[largest[0]]}, or raise the limit"
    )


def gradient_memory(
    config: ProbeConfig, others_gib: float, *, num_groups: int, num_weights: int, weight_bytes: int = 4
) -> tuple[int | None, float]:
    """Returns the number of weights whose gradients are held at once for dot products between groups.

    They get the rest of the limit, at least a sixteenth of it. If that is not enough for all weights, they are
    processed in blocks, each with its own passes.

    Args:
        config: limit and ``gradient_dot``.
        others_gib: memory of the other products, see :func:`check_memory`.
        num_groups: number of groups, at least 1.
        num_weights: number of weights that chains move.
        weight_bytes: bytes of an entry of a gradient, 4 or 8.

    Returns:
        The size of a block, None for all weights at once; and its memory on the module's device, GiB: two gradients for
        each group.
    """
    if not config.gradient_dot:
        return None, 0.0
    for_each = VECTORS * weight_bytes * num_groups / _GIB
    room = max(config.memory_limit_gib - others_gib, _LEAST_SHARE * config.memory_limit_gib)
    if for_each * num_weights <= room:
        return None, for_each * num_weights
    block = max(1, int(room / for_each))
    return block, for_each * block
