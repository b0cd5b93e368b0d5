import numpy as np
import pytest

from stagewise.sampling.diagnostics import diagnose
from stagewise.sampling.trace import Trace


def trace_of(loss, anchor=None):
    loss = np.asarray(loss, dtype=np.float32)
    anchor = np.zeros(loss.shape[2], dtype=np.float32) if anchor is None else anchor
    return Trace(
        loss=loss,
        anchor_loss=anchor,
        mask=np.ones(anchor.shape, dtype=bool),
        distance=np.zeros(loss.shape[:2], dtype=np.float32),
        chains=tuple(range(len(loss))),
        dropped={},
        step=0,
    )


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape)


def test_independent_draws_look_converged():
    found = diagnose(trace_of(noise(4, 200, 3)))
    assert found.rhat_max < 1.05
    assert 500 < found.ess_min < 1000
    assert found.drift < 0.05


def test_chains_in_different_places_raise_rhat():
    assert diagnose(trace_of(noise(4, 100, 2) + 10 * np.arange(4)[:, None, None])).rhat_max > 2


def test_a_slide_raises_the_drift_share():
    slide = noise(2, 100, 2) * 0.1 + np.linspace(0, 1, 100)[None, :, None]
    assert diagnose(trace_of(slide)).drift > 0.6


def test_drift_share_of_a_ramp_is_three_quarters():
    ramp = np.broadcast_to(np.linspace(0, 1, 1000)[None, :, None], (1, 1000, 1))
    assert diagnose(trace_of(ramp)).drift == pytest.approx(0.75, abs=0.01)


def test_loss_rise_compares_second_halves_with_the_anchor():
    loss = np.concatenate([np.full((2, 5, 3), 9.0), np.full((2, 5, 3), 2.5)], axis=1)
    assert diagnose(trace_of(loss, np.full(3, 2.0, dtype=np.float32))).loss_rise == pytest.approx(0.5)


def test_too_few_draws_leave_rhat_and_ess_out():
    found = diagnose(trace_of(noise(2, 3, 2)))
    assert found.rhat_max is None
    assert found.ess_min is None


def test_a_loss_that_never_moves_is_passed_over():
    loss = noise(2, 50, 2)
    loss[..., 1] = 0
    assert np.isfinite(diagnose(trace_of(loss)).rhat_max)
