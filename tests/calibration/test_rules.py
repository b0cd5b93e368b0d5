"""Proposed settings keep the rules they are made by."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stagewise.calibration.curvature import Curvature
from stagewise.calibration.findings import check_settings
from stagewise.calibration.rules import (
    FLOOR_SHARE,
    LOCALIZATION_MARGIN,
    STEP_AIM,
    apply,
    propose,
)
from stagewise.errors import InputError
from stagewise.sampling.config import Integrator, SGLDConfig
from stagewise.sampling.preconditioners.diagonal import RMSprop

AUTO = SGLDConfig(lr="auto", localization="auto", nbeta=300, num_draws=1000)


def at(lam_max, lam_min, step=0):
    return Curvature(lam_max, lam_min, 0.0, 0, step)


curvatures = st.lists(
    st.builds(at, st.floats(1e-3, 1e3), st.floats(-1e3, 0.5e-3), st.integers(0, 1000)), min_size=1, max_size=5
)


@example([at(1.0, -1.0)], 0.1, 1.0, Integrator.leimkuhler_matthews)  # 1.5 x .1 is more than .15
@given(curvatures, st.floats(0.1, 1e4), st.floats(1, 4), st.sampled_from(Integrator))
def test_rules_hold_at_every_checkpoint_grown_as_stated(found, nbeta, growth, integrator):
    config = replace(AUTO, nbeta=nbeta, integrator=integrator)
    proposal = propose(config, found, growth=growth)
    for item in found:
        assert proposal.lr * (nbeta * growth * item.lam_max + proposal.localization) <= STEP_AIM[integrator] * (
            1 + 1e-9
        )
        assert proposal.localization >= LOCALIZATION_MARGIN * nbeta * growth * max(0, -item.lam_min) * (1 - 1e-9)
        assert proposal.localization >= FLOOR_SHARE * nbeta * growth * item.lam_max * (1 - 1e-9)
    assert proposal.nbeta == nbeta
    wrong = {check_setting.name for check_setting in check_settings(apply(config, proposal), found)}
    assert not wrong & {"unstable", "biased", "improper", "thin"}


@given(curvatures, st.sampled_from(Integrator))
def test_rules_are_met_without_waste(found, integrator):
    """Two significant digits, and nothing more than that is given away."""
    proposal = propose(replace(AUTO, integrator=integrator), found)
    high, low = max(item.lam_max for item in found), min(item.lam_min for item in found)
    need = 300 * max(LOCALIZATION_MARGIN * max(0.0, -low), FLOOR_SHARE * high)
    assert proposal.localization <= 1.1 * need * (1 + 1e-9)
    assert proposal.lr * proposal.lam_max_total >= 0.9 * STEP_AIM[integrator] * (1 - 1e-9)
    assert proposal.step_aim == STEP_AIM[integrator]


def test_worst_checkpoint_of_each_end_counts():
    early, late = at(2.0, -3.0, 10), at(50.0, -0.1, 900)
    proposal = propose(AUTO, [early, late])
    assert (proposal.lam_max, proposal.lam_min) == (50.0, -3.0)
    assert proposal.localization == 7500  # .5 x 300 x 50, above 1.5 x 300 x 3 = 1350
    assert proposal.lr == 1.1e-4  # 2.5 / (300 x 50 + 7500) = 1.11e-4, rounded down
    assert propose(replace(AUTO, integrator="euler"), [early, late]).lr == 1.3e-5  # .3 / 22500 = 1.33e-5
    assert propose(AUTO, [at(2.0, -3.0)]).localization == 1400  # 1350, rounded up


def test_numbers_that_were_given_are_kept_where_asked():
    config = replace(AUTO, localization=5000.0)
    kept = propose(config, [at(10.0, -1.0)], keep=True)
    assert kept.localization == 5000
    assert kept.lr == 3.1e-4  # 2.5 / (3000 + 5000) = 3.125e-4
    assert propose(replace(AUTO, lr=1e-6), [at(10.0, -1.0)], keep=True).lr == 1e-6
    assert propose(config, [at(10.0, -1.0)]).localization == 1500


def test_curvature_of_the_preconditioned_chain_takes_the_place_of_the_plain_one():
    config = replace(AUTO, localization=100.0, preconditioner=RMSprop(), num_burnin_steps=10)
    proposal = propose(config, [at(10.0, -0.1)], steepest=[2000.0, 6000.0], keep=True)
    assert proposal.lr == 4.1e-4  # 2.5 / 6000 = 4.17e-4
    assert proposal.lam_max_total == 6000


def test_explanation_names_the_figures():
    text = propose(AUTO, [at(10.0, -2.0)], growth=2).explain()
    assert "localization 3e+03" in text
    assert "0.5 x nbeta x lam_max = 3e+03" in text
    assert "(aim: 2.5)" in text
    assert "1.5 x nbeta x |lam_min| = 1.8e+03" in text
    assert "2 times as large as measured" in text


@pytest.mark.parametrize(
    ("config", "found", "arguments", "words"),
    [
        (AUTO, [], {}, "no curvature"),
        (AUTO, [at(float("nan"), 0.0)], {}, "finite"),
        (AUTO, [at(float("inf"), 0.0)], {}, "finite"),
        (AUTO, [at(0.0, 0.0)], {}, "leave the loss flat"),
        (AUTO, [at(1.0, 0.0)], {"growth": 0.5}, "growth=0.5"),
        (SGLDConfig(nbeta=0, localization=10.0), [at(1.0, 0.0)], {}, "nbeta=0"),
    ],
)
def test_impossible_requests_are_refused(config, found, arguments, words):
    with pytest.raises(InputError, match=words):
        propose(config, found, **arguments)
