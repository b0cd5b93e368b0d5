from dataclasses import replace
from pathlib import Path

import pytest

from stagewise.cli.toy import toy_parser
from stagewise.errors import InputError
from stagewise.probes.config import ProbeConfig
from stagewise.probes.schedule import LogSpaced, ProbeSchedule
from stagewise.sampling.config import SGLDConfig
from stagewise.studies.toy.config import NetworkSettings, RetrainingSettings, ToyConfig
from tests.studies.toy.small import small_config

SGLD = SGLDConfig(lr=3e-5, localization=1e4, num_chains=4)


def test_probed_steps_are_those_of_the_schedule():
    assert small_config().probed_steps == LogSpaced(20, 200, 8).steps()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, ">= 0"),
        ({"num_workers": 0}, "num_workers"),
        ({"output": ""}, "text that is not empty"),
        ({"network": NetworkSettings(num_steps=100)}, "run of 100 steps"),
        ({"retraining": RetrainingSettings(window_lengths=[190])}, "shorter windows"),
    ],
)
def test_experiments_that_cannot_be_run_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        small_config(**changes)


@pytest.mark.parametrize(
    ("influence", "words"),
    [
        ({"schedule": ProbeSchedule(every_n_steps=10)}, "listed steps"),
        ({"schedule": ProbeSchedule(at_steps=[0, 10, 20, 30])}, "from 1 on"),
        ({"schedule": ProbeSchedule(at_steps=[10, 20, 30, 150], max_overhead=0.5)}, "max_overhead"),
        ({"sgld": replace(SGLD, num_chains=2)}, "3 or more"),
        ({"sgld": replace(SGLD, batch_size=2)}, "all 3 items"),
        ({"sgld": replace(SGLD, lr="auto")}, "numbers"),
        ({"sgld": replace(SGLD, drift="tilted")}, "plain loss"),
        ({"sgld": replace(SGLD, weight_decay=0.1)}, "plain loss"),
        ({"sgld": replace(SGLD, parameters=["first*"])}, "all weights"),
        ({"probe": ProbeConfig(save_trace=False)}, "read from the draws"),
        ({"probe": ProbeConfig(save_trace=True)}, "sample_matrices=within; expected all, since every part is compared"),
        ({"probe": ProbeConfig(gradient_dot=False)}, "baseline of every comparison"),
    ],
)
def test_probes_that_cannot_be_compared_are_refused(influence, words):
    with pytest.raises(InputError, match=words):
        small_config(influence=replace(small_config().influence, **influence))


@pytest.mark.parametrize("drift", ["auto", "plain", "control_variate"])
def test_drifts_that_are_the_plain_gradient_where_a_minibatch_is_the_whole_set_are_taken(drift):
    """test_gradients holds that they are."""
    influence = small_config().influence
    sgld = replace(influence.sgld, drift=drift)
    assert small_config(influence=replace(influence, sgld=sgld)).influence.sgld.drift == drift


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"horizon": 7}, "one of horizons"),
        ({"horizons": [50, 20], "horizon": 20}, "increasing"),
        ({"window_lengths": [0]}, "each entry a whole number >= 1"),
        ({"window_weights": [1.0]}, "none of them 1"),
        ({"window_weights": []}, "none of them 1"),
        ({"num_windows": 1}, "a whole number >= 2; 16 is the default"),
        ({"small_change": 0.0}, "small_change"),
        ({"gaussian_every": 0}, "gaussian_every"),
    ],
)
def test_retraining_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        RetrainingSettings(**settings)


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"num_steps": 0}, {"lr": 0.0}, {"init_std": -1.0}])
def test_network_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        NetworkSettings(**settings)


def test_shipped_configuration_is_the_default():
    parsed = toy_parser().parse_args(["-c", str(Path(__file__).parents[3] / "configs" / "toy.yaml")])
    values = toy_parser().instantiate_classes(parsed).as_dict()
    values.pop("config")
    assert ToyConfig(**values) == ToyConfig()
