"""Coverage of intervals over chains: AR(1) losses with known factors of classes, 200 repetitions."""

import numpy as np
import pytest
from scipy.signal import lfilter

from stagewise.influence.group_influence import group_influence
from stagewise.influence.groups import Groups
from stagewise.influence.split import PARTS, Centering
from stagewise.influence.uncertainty import t_interval

pytestmark = pytest.mark.slow

REPETITIONS, CLASSES, SAMPLES, TOKENS = 200, 3, 6, 6
CLASS_OF = np.random.default_rng(0).integers(0, CLASSES, size=(SAMPLES, TOKENS))
GROUPS = Groups({f"class {row}": row == CLASS_OF for row in range(CLASSES)}, np.ones_like(CLASS_OF))
COUNTS = GROUPS.counts.ravel()
MIXING = np.array([[1.0, 0, 0], [0.6, 0.8, 0], [-0.5, 0.3, 0.7]])
OF_SAMPLE, OF_TOKEN = 0.5, 0.7
PAIRS = np.triu_indices(CLASSES)


def autoregressive(generator, shape, memory):
    """``[chain, draw, ...]`` of variance 1, from its stationary law on."""
    noise = generator.normal(size=shape)
    noise[:, 1:] *= np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], noise, axis=1)


def sums(seed, chains, num, memory, shift=0.0):
    """Group sums ``[chain, draw, group * sample]``: a factor of the class, one of the sample, and noise of tokens."""
    generator = np.random.default_rng(seed)
    classes = autoregressive(generator, (chains, num, CLASSES), memory) @ MIXING.T + shift
    samples = OF_SAMPLE * autoregressive(generator, (chains, num, SAMPLES), memory)
    noise = OF_TOKEN * autoregressive(generator, (chains, num, CLASSES * SAMPLES), memory)
    common = classes[..., :, None] + samples[..., None, :]
    return common.reshape(chains, num, -1) * COUNTS + np.sqrt(COUNTS) * noise


def truth(shift=0.0):
    """Returns influence of infinitely long chains over pairs in different samples, and its correlation."""
    between = np.outer(shift, shift) / 4 if np.ndim(shift) else 0.0
    covariance = MIXING @ MIXING.T + between
    own = np.repeat(np.diag(covariance), SAMPLES)
    variance = (COUNTS**2 * (own + OF_SAMPLE**2) + COUNTS * OF_TOKEN**2).reshape(CLASSES, SAMPLES)
    counts = GROUPS.counts
    correlation = np.zeros((CLASSES, CLASSES))
    for g, h in np.ndindex(CLASSES, CLASSES):
        pairs = [
            counts[g, n] * counts[h, m] * covariance[g, h] / np.sqrt(variance[g, n] * variance[h, m])
            for n, m in np.ndindex(SAMPLES, SAMPLES)
            if n != m and counts[g, n] and counts[h, m]
        ]
        correlation[g, h] = np.mean(pairs)
    return {"group_bif": -covariance, "group_bif_correlation": -correlation}


def measure(chains, num, memory, part, shift=None, centering=Centering.pooled):
    """Returns, by name, the coverage of the truth ``[pair]``, and the mean estimate ``[group, group]``."""
    exact = truth() if shift is None else truth(shift)
    held, estimates = ({name: [] for name in exact} for _ in range(2))
    for seed in range(REPETITIONS):
        current = sums(seed, chains, num, memory, 0.0 if shift is None else shift)
        past = None if shift is None else sums(REPETITIONS + seed, chains, num, memory)
        got = group_influence(current, past, GROUPS, centering=centering)
        row = PARTS.index(part)
        for name, value in exact.items():
            low, high = t_interval(got[name][row], got[f"{name}_se"][row], chains)
            held[name].append(((low <= value) & (value <= high))[PAIRS])
            estimates[name].append(got[name][row])
    return {name: np.mean(item, axis=0) for name, item in held.items()}, {
        name: np.mean(item, axis=0) for name, item in estimates.items()
    }


@pytest.mark.parametrize(("chains", "num", "memory"), [(4, 100, 0.8), (8, 100, 0.9)])
def test_intervals_for_the_total_cover_the_truth(chains, num, memory):
    """Chains of 11 and of 5 effective draws."""
    held, _ = measure(chains, num, memory, "total")
    for shares in held.values():
        assert (shares >= 0.9).all(), held
        assert (shares <= 0.98).all(), held


def test_with_a_reference_intervals_for_the_total_cover_the_shift_too():
    held, _ = measure(4, 100, 0.8, "total", shift=np.array([1.0, -0.5, 2.0]))
    for shares in held.values():
        assert (shares >= 0.9).all(), held
        assert (shares <= 0.98).all(), held


def test_intervals_for_within_cover_the_truth_for_long_chains():
    held, _ = measure(4, 1000, 0.8, "within")
    for shares in held.values():
        assert (shares >= 0.9).all(), held
        assert (shares <= 0.98).all(), held


def test_intervals_for_chain_centred_within_miss_the_truth_for_short_chains():
    """8 chains of 2 effective draws: within shows less, and drift the rest; the total, and pooled within, do better."""
    held, estimates = measure(8, 40, 0.9, "within", centering=Centering.chain)
    variances = PAIRS[0] == PAIRS[1]
    assert (held["group_bif"][variances] < 0.6).all()
    assert (held["group_bif_correlation"][variances] < 0.6).all()
    total, _ = measure(8, 40, 0.9, "total")
    assert total["group_bif"].min() > 0.8
    assert total["group_bif_correlation"].min() > 0.9
    pooled, _ = measure(8, 40, 0.9, "within")
    assert pooled["group_bif"].min() > 0.8
    # Variance of the mean of 40 draws of AR(1), over that of one: the part removed by a chain's own mean.
    lags = np.arange(-39, 40)
    taken = ((40 - abs(lags)) * 0.9 ** abs(lags)).sum() / 40**2
    assert taken == pytest.approx(19 / 40, rel=0.25)  # 2 tau / T, in its first order
    shown = np.diag(estimates["group_bif"]) / np.diag(truth()["group_bif"])
    np.testing.assert_allclose(shown, 1 - taken, rtol=0.07)
