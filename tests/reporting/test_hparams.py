"""Settings and outcomes are in the run's own event file, as TensorBoard's HPARAMS tab reads them."""

import math
from dataclasses import dataclass

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from torch.utils.tensorboard import SummaryWriter

from stagewise.reporting.hparams import flat_settings, write_hparams
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.preconditioners.diagonal import RMSprop


@dataclass
class Inner:
    size: int = 3


class Other:
    pass


def test_settings_become_numbers_and_text_under_their_path():
    given = {
        "lr": 1e-3, "seed": 4, "on": True, "none": None, "inner": Inner(), "deep": {"a": {1: "x"}},
        "steps": [1, 2], "odd": Other(), "nan": math.nan,
    }  # fmt: skip
    assert flat_settings(given) == {
        "lr": 1e-3, "seed": 4.0, "on": "true", "none": "none", "inner/size": 3.0, "deep/a/1": "x",
        "steps": "1, 2", "odd": "Other", "nan": "nan",
    }  # fmt: skip
    sampler = flat_settings({"sgld": SGLDConfig(lr=1e-3, preconditioner=RMSprop(), num_burnin_steps=5)})
    assert sampler["sgld/lr"] == 1e-3
    assert sampler["sgld/localization"] == "auto"
    assert sampler["sgld/drift"] == "auto"
    assert any(name.startswith("sgld/preconditioner") for name in sampler)


def test_they_are_read_back_from_the_one_event_file_of_the_run(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("transition/windows", 2.0, 7)
        write_hparams([writer], {"seed": 1.0, "arm": "none"}, ["transition/windows", "influence/loss/a"], 7)
        write_hparams([writer], {"seed": 1.0, "arm": "none"}, ["transition/windows", "influence/loss/a"], 9)  # resumed
    assert len(list(tmp_path.iterdir())) == 1
    events = EventAccumulator(str(tmp_path)).Reload()
    content = events.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["seed"].number_value == 1
    assert start.hparams["arm"].string_value == "none"
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    assert [hparam_info.name for hparam_info in experiment.hparam_infos] == ["seed", "arm"]
    assert [metric_info.name.tag for metric_info in experiment.metric_infos] == [
        "transition/windows",
        "influence/loss/a",
    ]
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("transition/windows")] == [(7, 2.0)]
    assert "influence/loss/a" not in events.Tags()["scalars"]
