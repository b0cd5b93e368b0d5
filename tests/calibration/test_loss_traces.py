"""Loss traces of known shape get the verdict that a reader would give."""

import numpy as np
import pytest

from stagewise.calibration.loss_traces import judge
from stagewise.errors import InputError
from stagewise.sampling.trace import Trace

DRAWS = np.arange(80)


def trace_of(curves, dropped=None, anchor=2.0):
    """``[chain, draw]`` relative losses, as a trace of two samples that differ."""
    curves = np.asarray(curves) + anchor
    return Trace(
        loss=np.stack([curves - 0.5, curves + 0.5], axis=-1).astype(np.float32),
        anchor_loss=np.array([anchor - 0.5, anchor + 0.5], dtype=np.float32),
        mask=np.ones(2, dtype=bool),
        distance=np.zeros(curves.shape, dtype=np.float32),
        chains=tuple(range(len(curves))),
        dropped=dropped or {},
        step=80,
    )


def rising(level=0.2, pace=5.0, noise=0.01, num=4, seed=0):
    generator = np.random.default_rng(seed)
    return level * (1 - np.exp(-DRAWS / pace)) + noise * generator.standard_normal((num, len(DRAWS)))


def test_good_trace_is_called_good_with_its_numbers():
    verdict = judge(trace_of(rising()))
    assert verdict.faults == ()
    assert verdict.level == pytest.approx(0.2, abs=0.005)
    # 1 - exp(-t / 5) = .8 at t = 8.05.
    assert verdict.reached_at in (7, 8, 9)
    assert verdict.spikes == 0
    assert verdict.spread < 0.01
    assert "step 80: good: rises by 0.199 nats, reaches 80% of it at draw" in verdict.explain()


def with_spike(curves):
    curves[2, 60] += 0.5
    return curves


BAD = {
    "sinking": (lambda: rising(level=-0.1), "does not rise above the loss at w\\*"),
    "slow": (lambda: rising(pace=60.0), "rises slowly"),
    "still rising": (lambda: 0.2 * DRAWS / 80 + rising(level=0.0), "has not levelled off"),
    "spikes": (lambda: with_spike(rising()), "1 spikes"),
    "apart": (lambda: rising() * np.array([[0.5], [0.8], [1.2], [1.5]]), "chains level off .* apart"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_trace_is_called_by_its_fault(case):
    build, words = BAD[case]
    verdict = judge(trace_of(build()))
    assert verdict.faults
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(verdict.explain())


def test_noise_alone_is_no_movement():
    """With a level lost in noise, the movement of the quarters is held against its own error."""
    verdict = judge(trace_of(rising(level=0.02, noise=0.05)))
    assert not any("levelled" in fault for fault in verdict.faults)


def test_diverged_chains_are_a_fault():
    verdict = judge(trace_of(rising(num=3), dropped={3: "rose"}))
    assert verdict.faults == ("1 of 4 chains diverged",)


def test_one_chain_has_no_spread_but_a_verdict():
    verdict = judge(trace_of(rising(num=1)))
    assert np.isnan(verdict.spread)
    assert verdict.faults == ()


@pytest.mark.parametrize("curves", [np.zeros((0, 80)), np.zeros((2, 7))])
def test_too_little_to_judge_is_refused(curves):
    with pytest.raises(InputError, match=r"got . chains of .* draws"):
        judge(trace_of(curves))
