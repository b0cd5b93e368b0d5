"""Folds of the observed set that keep pairs of losses between groups."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stagewise.errors import require

Counts = NDArray[np.integer[Any]]


def assign_folds(counts: Counts, num_folds: int | None = None) -> NDArray[np.int64]:
    """Assigns samples to folds of about equal size, so that each group spans several folds.

    Two groups with a pair of losses in different samples also have one in different folds: a group of several samples
    never lies within one fold, and samples that are the only ones of some group are in different folds. If this needs
    more than ``num_folds`` folds, more are made, up to one per sample. The same counts give the same folds.

    Args:
        counts: ``[group, sample]``, number of losses of each group in each sample.
        num_folds: number of folds; one per sample if None, or if there are at most that many samples.

    Returns:
        ``[sample]``, fold numbers from 0; -1 for a sample without a loss of any group.

    Raises:
        InputError: fewer than two folds.
    """
    require(
        num_folds is None or num_folds >= 2,
        "num_folds",
        num_folds,
        "2 or more, or None for all pairs",
        "4 keep three pairs in four",
    )
    held = np.asarray(counts) > 0
    folds = np.full(held.shape[1], -1, dtype=np.int64)
    used = np.flatnonzero(held.any(axis=0))
    if num_folds is None or num_folds >= len(used):
        folds[used] = np.arange(len(used))
        return folds
    sizes, totals = held.sum(axis=1), np.asarray(counts).sum(axis=1)
    alone = held[sizes == 1].any(axis=0)
    # [fold, group] losses, [fold] samples, and True if the fold has a sample that is the only one of some group.
    losses, samples, has_alone = np.zeros((num_folds, len(held))), np.zeros(num_folds), np.zeros(num_folds, dtype=bool)
    left = sizes.copy()
    # Rare groups first: their samples have the least choice (iterative stratification, Sechidis et al. 2011).
    for group in np.argsort(sizes, kind="stable"):
        for sample in np.flatnonzero(held[group] & (folds < 0)):
            mine = np.flatnonzero(held[:, sample])
            # A group whose last sample this is must not end up within one fold.
            last = mine[(left[mine] == 1) & (sizes[mine] > 1)]
            within = losses[:, last] == losses[:, last].sum(axis=0)
            allowed = ~within.any(axis=1)
            if alone[sample]:
                allowed &= ~has_alone
            if allowed.any():
                free = np.flatnonzero(allowed)
                # Pairs within the fold are lost: choose the fold where groups lose the smallest shares of their pairs.
                lost = losses[np.ix_(free, mine)] @ (counts[mine, sample] / totals[mine] ** 2)
                fold = free[np.lexsort((samples[free], lost))[0]]
            else:
                fold = len(samples)
                losses = np.vstack([losses, np.zeros(len(held))])
                samples, has_alone = np.append(samples, 0.0), np.append(has_alone, False)
            folds[sample] = fold
            losses[fold, mine] += counts[mine, sample]
            samples[fold] += 1
            has_alone[fold] |= alone[sample]
            left[mine] -= 1
    _, folds[used] = np.unique(folds[used], return_inverse=True)
    return folds


def pairs_between(counts: Counts, folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts pairs of losses of two groups in different folds, ``[group, group]``.

    Args:
        counts: ``[group, sample]``, number of losses of each group in each sample.
        folds: ``[sample]``, from :func:`assign_folds`.
    """
    by_fold = np.stack([counts[:, folds == fold].sum(axis=1) for fold in range(folds.max() + 1)], axis=1)
    totals = by_fold.sum(axis=1)
    return np.asarray(totals[:, None] * totals[None] - by_fold @ by_fold.T, dtype=np.int64)
