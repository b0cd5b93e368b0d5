"""The line about a probe names the strongest influence, read off by hand, and how sure it is."""

import numpy as np
import pytest
import xarray as xr

from stagewise.reporting.probe_line import probe_line, strongest_now


def probe(value, error, *, flags=(), num_chains=5, **extra):
    """A probe with two groups; ``value`` and ``error`` ``[group, group]`` of the within part."""
    parts = np.stack([np.asarray(value, dtype=float), np.full((2, 2), 9.0)])
    errors = np.stack([np.asarray(error, dtype=float), np.full((2, 2), 0.1)])
    axes = ("part", "group", "group_j")
    return xr.Dataset(
        {
            "group_bif": (axes, parts),
            "group_bif_se": (axes, errors),
            "group_loss": ("group", [1.25, 3.0]),
            "seconds": 8.25,
            **extra,
        },
        coords={"part": ["within", "between"], "group": ["a", "b"], "group_j": ["a", "b"]},
        attrs={"step": 40, "sgld": {"num_chains": num_chains}, "flags": dict.fromkeys(flags, "words")},
    )


# Student's t of .975 with 4 degrees of freedom: 2.776.
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([[-2, 1], [1, 5]], [[0.5, 9], [9, 9]], "a loss 1.25 nats, influence a on itself -2 nats² (helpful)"),
        ([[-2, 4], [4, 3]], [[0.5, 1], [1, 1.2]], "a loss 1.25 nats, influence a ~ b +4 nats² (harmful)"),
        ([[-2, 1], [1, 3]], [[0.8, 0.4], [0.4, 1.2]], "b loss 3 nats, influence b on itself +3 nats² (unresolved)"),
        ([[np.nan, 1], [1, np.nan]], [[np.nan, 0.1]] * 2, "a loss 1.25 nats, influence a ~ b +1 nats² (harmful)"),
    ],
)
def test_strongest_influence_beyond_its_interval(value, error, words):
    assert probe_line(probe(value, error), number=3) == f"probe 3 at step 40, {words}, 8.2 s"


def test_a_pair_that_is_given_is_told_of_whatever_is_strongest():
    result = probe([[-2, 4], [4, 3]], [[0.5, 1], [1, 1.2]])
    assert strongest_now(result) == (("a", "b"), True)
    line = probe_line(result, number=1, pair=["b", "b"])
    assert "b loss 3 nats, influence b on itself +3 nats² (unresolved)" in line
    assert strongest_now(probe([[-2, 1], [1, 3]], [[0.8, 0.4], [0.4, 1.2]])) == (("b", "b"), False)
    assert strongest_now(probe(np.full((2, 2), np.nan), np.full((2, 2), np.nan))) == (None, False)


def test_one_chain_resolves_nothing():
    line = probe_line(probe([[-2, 0], [0, 0]], np.full((2, 2), np.nan), num_chains=1), number=1)
    assert "(unresolved)" in line


def test_without_pairs_and_with_flags():
    nothing = np.full((2, 2), np.nan)
    assert probe_line(probe(nothing, nothing, flags=["ess", "rhat"]), number=1) == (
        "probe 1 at step 40, 8.2 s; flagged: ess, rhat"
    )


def test_out_of_equilibrium_no_sign_is_claimed():
    assert "(out of equilibrium)" in probe_line(probe([[-2, 0], [0, 0]], np.ones((2, 2)), equilibrated=0.0), number=1)
