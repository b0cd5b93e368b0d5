from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import EQUILIBRIUM_FLAGS, FLAG_NAMES, Thresholds, advice, find_flags
from stagewise.probes.prober import Prober
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.diagnostics import Diagnostics
from tests.sampling.test_chains import linear, regression, squared

GOOD = Diagnostics(
    finite=True,
    rhat_max=1.05,
    ess_min=100.0,
    rhat_groups=1.01,
    ess_groups=200.0,
    mcse_mean=0.05,
    mcse_max=0.1,
    drift=0.02,
    slide_chance=0.4,
    loss_rise=0.1,
    chain_share=0.01,
    draw_share=0.01,
    distance=0.3,
)


DEFAULTS = Thresholds()


def names(found, thresholds=DEFAULTS, nbeta=30.0, **others):
    return [flag.name for flag in find_flags(found, thresholds, nbeta=nbeta, **others)]


def test_good_probe_has_no_flag():
    assert names(GOOD) == []


BAD = [
    ("rhat", "rhat_max", {"rhat_groups": 1.11}),
    ("ess", "ess_min", {"ess_groups": 49.0}),
    ("sample_rhat", "sample_rhat_max", {"rhat_max": float("inf")}),
    ("sample_ess", "sample_ess_min", {"ess_min": 19.9}),
    ("chain_share", "chain_share_max", {"chain_share": 0.21}),
    ("draw_share", "draw_share_max", {"draw_share": 0.21}),
    ("drift", "drift_max", {"drift": 0.6}),
    ("slide", "slide_chance_min", {"slide_chance": 0.009}),
    ("loss_rise", "loss_rise_max", {"loss_rise": 1.1}),
    ("loss_fall", "loss_fall_max", {"loss_rise": -0.06}),
    ("minibatch_noise", "minibatch_noise_max", {"minibatch_noise": 0.3}),
]


@pytest.mark.parametrize(("name", "threshold", "change"), BAD)
def test_each_limit_flags_what_passes_it_and_null_switches_it_off(name, threshold, change):
    found = replace(GOOD, **change)
    (flag,) = find_flags(found, DEFAULTS, nbeta=30.0)
    assert flag.name == name
    assert not flag.severe
    assert flag.words.startswith("got ")
    assert "; expected at " in flag.words
    assert names(found, Thresholds(**{threshold: None})) == []


def test_every_limit_has_its_flag():
    others = {"chains_dropped_max", "lr_curvature_max"}
    assert {threshold for _, threshold, _ in BAD} | others == {field.name for field in fields(Thresholds)}
    assert set(FLAG_NAMES) == {name for name, _, _ in BAD} | {"chains_dropped", "not_finite", "unstable"}


def test_a_step_beyond_the_limit_of_stability_is_out_of_equilibrium_however_alike_the_chains():
    assert names(GOOD, lr_curvature=None) == names(GOOD, lr_curvature=4.0) == []
    assert names(GOOD, lr_curvature=4.1) == ["unstable"]
    assert "unstable" in EQUILIBRIUM_FLAGS
    assert names(GOOD, Thresholds(lr_curvature_max=None), lr_curvature=4.1) == []
    assert names(GOOD, Thresholds(lr_curvature_max=3), lr_curvature=3.5) == ["unstable"]


def test_dropped_chains_are_flagged_beyond_those_allowed():
    assert names(GOOD, chains_dropped=1) == ["chains_dropped"]
    assert names(GOOD, Thresholds(chains_dropped_max=1), chains_dropped=1) == []


def test_value_at_the_limit_is_no_flag():
    assert names(replace(GOOD, rhat_groups=1.1, ess_groups=50.0)) == []


def test_what_is_not_finite_is_severe_and_cannot_be_switched_off():
    off = Thresholds(**{field.name: None for field in fields(Thresholds)})
    (flag,) = find_flags(Diagnostics(finite=False), off, nbeta=30.0)
    assert flag.severe
    assert flag.name == "not_finite"
    assert "draws that are not finite; expected finite ones; lower sgld.lr or raise sgld.localization" in flag.words
    (flag,) = find_flags(GOOD, off, nbeta=30.0, gradients_finite=False)
    assert (flag.name, flag.severe) == ("not_finite", True)
    assert "gradients of observed losses" in flag.words
    assert "look at the model" in flag.words
    assert "sgld" not in flag.words


def test_too_few_draws_to_tell_are_no_reason_to_believe():
    undefined = replace(GOOD, rhat_groups=None, ess_groups=None, rhat_max=None, ess_min=None)
    assert names(undefined) == ["ess"]
    assert names(undefined, Thresholds(ess_min=None)) == []


def test_rise_of_the_negative_control_is_not_judged():
    assert names(replace(GOOD, loss_rise=5.0), nbeta=0.0) == []


@pytest.mark.parametrize("nbeta", [0.0, 30.0])
def test_settled_chains_trip_no_flag_with_or_without_the_loss(nbeta):
    x, y = regression(num=20)
    module = linear(x, y)
    sgld = SGLDConfig(
        lr=0.5 / 60,
        nbeta=nbeta,
        localization=60.0,
        num_chains=4,
        num_draws=60,
        num_burnin_steps=30,
        num_steps_bw_draws=4,
        batch_size=20,
    )
    probe, _ = Prober(module, squared, ProbeData((x, y)), sgld=sgld, config=ProbeConfig()).probe(module, 1)
    assert probe.attrs["flags"] == {}
    assert int(probe["flagged"]) == 0


def test_chains_without_burn_in_are_flagged_for_their_slide():
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    batch = (torch.randn(20, 3), 3 + torch.randn(20, 1))
    settings = {"lr": 2e-3, "nbeta": 30.0, "localization": 1.0, "num_chains": 4, "num_draws": 60, "batch_size": 20}
    sgld = SGLDConfig(**settings, num_burnin_steps=0, start="anchor")
    probe, _ = Prober(module, squared, ProbeData(batch), sgld=sgld, config=ProbeConfig()).probe(module, 1)
    assert {"rhat", "draw_share", "drift", "loss_fall"} <= set(probe.attrs["flags"])


@pytest.mark.parametrize(
    "bad", [{"rhat_max": 0.9}, {"ess_min": -1.0}, {"loss_rise_max": float("nan")}, {"draw_share_max": float("inf")}]
)
def test_limits_that_mean_nothing_are_refused(bad):
    with pytest.raises(InputError, match=r"got thresholds\..*; expected .*null"):
        Thresholds(**bad)


def in_equilibrium(flags):
    return not any(flag.of_equilibrium for flag in flags)


@pytest.mark.parametrize(("name", "change"), [(name, change) for name, _, change in BAD])
def test_only_flags_of_the_way_to_equilibrium_say_that_chains_are_not_there(name, change):
    flags = find_flags(replace(GOOD, **change), DEFAULTS, nbeta=30.0)
    noise_or_stated = {"ess", "sample_ess", "sample_rhat", "minibatch_noise", "loss_rise"}
    assert in_equilibrium(flags) == (name in noise_or_stated) == (name not in EQUILIBRIUM_FLAGS)


def test_what_is_not_finite_is_out_of_equilibrium_and_a_limit_that_is_off_is_not_asked():
    assert not in_equilibrium(find_flags(Diagnostics(finite=False), DEFAULTS, nbeta=30.0))
    assert in_equilibrium(find_flags(replace(GOOD, rhat_groups=3.0), Thresholds(rhat_max=None), nbeta=30.0))
    assert in_equilibrium(find_flags(GOOD, DEFAULTS, nbeta=30.0, chains_dropped=2))


@pytest.mark.parametrize("name", FLAG_NAMES)
def test_every_flag_has_a_remedy_of_settings_that_there_are(name):
    settings = {f"sgld.{field.name}" for field in fields(SGLDConfig)} | {"probe.centering"}
    named = [word.strip(",;") for word in advice(name).split() if word.startswith(("sgld.", "probe."))]
    assert set(named) <= settings
    assert named or name in ("sample_rhat", "sample_ess")


def test_unknown_flags_have_no_remedy():
    with pytest.raises(InputError, match="got flag 'heat'; expected one of not_finite, unstable, rhat"):
        advice("heat")


def test_chains_from_the_weights_without_burn_in_have_neither_z_nor_equilibrium():
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    batch = (torch.randn(20, 3), 3 + torch.randn(20, 1))
    sgld = SGLDConfig(
        lr=2e-3, nbeta=30.0, localization=1.0, num_chains=4, num_draws=60, batch_size=20, num_burnin_steps=0,
        start="anchor",
    )  # fmt: skip
    prober = Prober(module, squared, ProbeData(batch), sgld=sgld, config=ProbeConfig())
    probe, _ = prober.probe(module, 1)
    assert int(probe["equilibrated"]) == 0
    assert "slide" in probe.attrs["flags"]
    assert probe["group_bif_z"].isnull().all()
    later, _ = prober.probe(module, 5)
    assert int(later["reference_equilibrated"]) == 0
    assert np.isfinite(later["signal"])
    assert np.isnan(later["signal_se"])
