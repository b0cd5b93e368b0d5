import pytest

from stagewise.errors import InputError
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.preconditioners.diagonal import RMSprop


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"nbeta": -1.0},
        {"localization": -2.0},
        {"lr": 1.0, "localization": 5.0},
        {"num_chains": 0},
        {"num_draws": 1},
        {"num_draws": 2.5},
        {"num_burnin_steps": -1},
        {"num_steps_bw_draws": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"max_loss_rise": 0.0},
        {"max_loss_rise": float("inf")},
        {"preconditioner": RMSprop(), "num_burnin_steps": 0},
        {"weight_decay": -0.1},
        {"drift": "plane"},
        {"integrator": "leapfrog"},
        {"start": "origin"},
        {"num_burnin_steps": "few"},
        {"num_steps_bw_draws": 1.5},
        {"num_burnin_steps": True},
        {"localization": 0.0},
        {"nbeta": 0.0},
        {"engine": "fast"},
    ],
)
def test_bad_settings_are_refused_with_got_expected_and_advice(bad):
    with pytest.raises(InputError, match=r"got .*; expected .*; "):
        SGLDConfig(**bad)


def test_unfrozen_rmsprop_needs_no_burnin():
    assert SGLDConfig(preconditioner=RMSprop(frozen=False), num_burnin_steps=0).burnin_steps == 0


def test_negative_control_and_no_localization_are_allowed():
    assert SGLDConfig(nbeta=0.0, localization=0.0, start="anchor").nbeta == 0


def test_num_steps_counts_burnin_and_thinning():
    assert SGLDConfig(num_burnin_steps=7, num_draws=3, num_steps_bw_draws=4).num_steps == 19
