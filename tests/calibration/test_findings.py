"""Each careless setting is found by its name, and what is said to set mends it."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.calibration.curvature import Curvature
from stagewise.calibration.findings import Severity, check_settings
from stagewise.errors import InputError
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Integrator, SGLDConfig
from stagewise.sampling.preconditioners.diagonal import RMSprop

SOUND = SGLDConfig(lr=1e-4, nbeta=100, localization=1000, num_draws=200)
SADDLE = Curvature(lam_max=10.0, lam_min=-4.0, residual=0.0, num_products=27, step=80)


def names(findings):
    return [finding.name for finding in findings]


def asked_for(text, setting):
    """The figure that a text says to set."""
    return float(re.search(rf"{setting} to ([0-9.e+-]+[0-9])", text).group(1))


def test_sound_settings_give_no_finding():
    assert check_settings(SOUND, [SADDLE]) == []


CARELESS = {
    "improper": ({"localization": 300.0}, Severity.refuse, ["localization", "nbeta"]),
    "thin": ({"localization": 500.0}, Severity.warn, ["localization", "nbeta"]),
    "unstable": ({"lr": 3e-3}, Severity.refuse, ["lr"]),
    "biased": ({"lr": 1.85e-3}, Severity.warn, ["lr"]),
    "biased (Euler)": ({"lr": 5e-4, "integrator": "euler"}, Severity.warn, ["lr"]),
    "frozen": ({"lr": 1e-7}, Severity.warn, ["lr"]),
    "blind": ({"localization": 3e4, "lr": 1e-5}, Severity.warn, ["localization", "nbeta"]),
}


@pytest.mark.parametrize("case", CARELESS)
def test_careless_setting_is_found_and_each_advice_mends_it(case):
    changes, severity, advised = CARELESS[case]
    name = case.split()[0]
    config = replace(SOUND, **changes)
    (finding,) = [check_setting for check_setting in check_settings(config, [SADDLE]) if check_setting.name == name]
    assert finding.severity is severity
    assert finding.step == 80
    for setting in advised:
        mended = replace(config, **{setting: asked_for(finding.text, setting)})
        assert name not in names(check_settings(mended, [SADDLE])), setting


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"localization": 300.0}, "lam_min = -4, and nbeta x |lam_min| = 400 exceeds it"),
        ({"lr": 3e-3}, "at step 80 lr x (nbeta x lam_max + localization) = 0.003 x (100 x 10 + 1000) = 6"),
        # 1 / (1 - 1 / 4) = 1.33
        ({"lr": 5e-4, "integrator": "euler"}, "the variance of the draws is 33% too large; set lr to 0.00015"),
        # 1 / (1 - 3.7 / 4) = 13.3; 1.85e-3 x 2.5 / 3.7 = 1.25e-3
        ({"lr": 1.85e-3}, "counts 13 times; the step is unstable where lr x curvature exceeds 4; set lr to 0.0013"),
        ({"localization": 3e4, "lr": 1e-5}, "BIF is about -(gradient dot product) / localization"),
        # 2 / (1e-7 x 2000) = 1e4
        ({"lr": 1e-7}, "remembers the one before for 1e+04 steps, and a chain has 200"),
    ],
)
def test_texts_give_the_reckoning(changes, words):
    assert words in " ".join(
        check_setting.text for check_setting in check_settings(replace(SOUND, **changes), [SADDLE])
    )


def test_slow_directions_are_a_remark():
    # 2 / (1e-4 x (1000 - 400)) = 33 steps.
    (finding,) = check_settings(replace(SOUND, num_draws=30), [SADDLE])
    assert (finding.name, finding.severity) == ("slow", Severity.inform)
    assert "33.3 steps" in finding.text
    assert check_settings(replace(SOUND, num_draws=30, num_steps_bw_draws=2), [SADDLE]) == []


def test_worst_step_is_named_and_refusals_come_first():
    late = Curvature(400.0, -0.1, 0.0, 27, step=900)
    findings = check_settings(replace(SOUND, localization=500.0), [SADDLE, late])
    assert [(finding.name, finding.step) for finding in findings] == [("unstable", 900), ("thin", 80)]


def test_negative_control_is_a_remark_and_nothing_else_of_the_posterior_is_said():
    (finding,) = check_settings(replace(SOUND, nbeta=0, lr=2e-4), [SADDLE])
    assert (finding.name, finding.severity) == ("control", Severity.inform)


def test_flat_loss_is_said_to_be_flat():
    (finding,) = check_settings(replace(SOUND, lr=2e-4), [Curvature(0.0, 0.0, 0.0, 27)])
    assert "the loss is flat here" in finding.text


def test_preconditioned_chain_is_judged_by_its_own_curvature():
    config = replace(SOUND, preconditioner=RMSprop(eps=1e-8), num_burnin_steps=10)
    steep = Curvature(1e9, 1e3, 0.0, 27, step=80)
    (finding,) = check_settings(config, [SADDLE], [steep])
    assert finding.name == "unstable"
    assert "with eps 1e-08 the preconditioner 1 / (sqrt(v) + eps) has no ceiling" in finding.text
    assert "set preconditioner.eps to 0.1" in finding.text
    assert "lr to 2.5e-09" in finding.text
    (finding,) = check_settings(replace(config, integrator="euler"), [SADDLE], [steep])
    assert "lr to 3e-10" in finding.text
    assert check_settings(config, [SADDLE]) == []


@pytest.mark.parametrize(
    ("config", "found", "words"),
    [(replace(SOUND, lr="auto"), [SADDLE], "lr='auto'"), (SOUND, [], "no curvature")],
)
def test_bad_input_is_refused(config, found, words):
    with pytest.raises(InputError, match=words):
        check_settings(config, found)


def test_steps_of_the_second_order_integrator_are_no_finding_up_to_the_edge():
    for reach, wrong in ((0.3, False), (1.0, False), (2.5, False), (3.4, False), (3.6, True)):
        found = names(check_settings(replace(SOUND, lr=reach / 2000), [SADDLE]))
        assert found == (["biased"] if wrong else [])


@pytest.mark.parametrize("integrator", Integrator)
@pytest.mark.parametrize("reach", [0.25, 1.0])
def test_bias_that_the_text_states_is_that_of_a_real_chain(reach, integrator):
    """A Gaussian: loss lam/2 |w|^2 in 400 directions at once."""
    lam, nbeta, localization = 2.0, 50.0, 100.0
    total = nbeta * lam + localization
    config = SGLDConfig(
        lr=reach / total,
        nbeta=nbeta,
        localization=localization,
        num_chains=2,
        num_draws=300,
        num_burnin_steps=50,
        integrator=integrator,
    )
    module = nn.Linear(400, 1, bias=False)
    nn.init.zeros_(module.weight)

    def quadratic(net, batch):
        return (lam / 2 * net.weight.square().sum()).expand(len(batch))

    trace = run_chains(module, quadratic, observed=torch.zeros(2, 1), sampling=torch.zeros(40, 1), config=config)
    variance = 2 * float(np.mean(trace.loss)) / lam / 400
    excess = 1 / (1 - reach / 4) - 1 if integrator is Integrator.euler else 0.0
    assert variance == pytest.approx((1 + excess) / total, rel=0.03)
    found = check_settings(config, [Curvature(lam, lam, 0.0, 1)])
    told = re.search(r"(\d+)% too large", " ".join(item.text for item in found))
    assert (told is None) == (reach < 0.4 or integrator is not Integrator.euler)
    if told is not None:
        assert int(told.group(1)) / 100 == pytest.approx(variance * total - 1, abs=0.03)
        assert math.isclose(int(told.group(1)) / 100, excess, abs_tol=0.01)
