"""The README's example of an intervention works as it stands."""

import json
import re
from pathlib import Path

import lightning
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import stagewise
from tests.callbacks.interventions import Numbered, Weighing

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def python_blocks():
    section = README.split("## Reweight inside windows")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


def test_the_example_of_the_readme_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _ = python_blocks()
    num = 32 * 800
    is_repeat = torch.arange(num) % 4 == 0
    names = {"L": lightning, "dataset": Numbered(num), "is_repeat": is_repeat, "module": Weighing()}
    # As it stands, but for its length.
    exec(code.replace("max_steps=2000", "max_steps=401, enable_progress_bar=False"), names)
    (file,) = tmp_path.rglob("intervention.json")
    found = json.loads(file.read_text())
    changes = [(it["step"], it["weights"]["repeats"]) for it in found["changes"]]
    assert changes == [(300, 4.0), (400, 1.0)]
    assert found["budget"]["groups"]["repeats"] == pytest.approx(100 * (4 / 1.75 - 1))


def live_example():
    _, code = python_blocks()
    return eval(code, {name: getattr(stagewise, name) for name in stagewise.__all__})


def test_the_live_example_is_the_detector_of_the_experiment():
    callback = live_example()
    settings = yaml.safe_load((ROOT / "configs" / "intervention.yaml").read_text())
    assert callback.windows.signal == settings["live"]["signal"]
    # Direction and length aside, which the signal and the arm set.
    for name in ("min_z", "num_probes"):
        assert getattr(callback.windows.detector, name) == settings["live"]["detector"][name]


def test_the_yaml_of_the_live_example_is_the_same_callback():
    section = README.split("## Reweight inside windows")[1].split("\n## ")[0]
    (block,) = re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    (callback,) = yaml.safe_load(block)["trainer"]["callbacks"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=lightning.pytorch.Callback)
    found = parser.instantiate_classes(parser.parse_object({"callback": callback})).callback
    expected = live_example()
    assert (found.windows, found.policy) == (expected.windows, expected.policy)


def test_the_lines_for_third_party_modules_are_those_that_the_tests_use():
    source = (Path(__file__).parents[1] / "callbacks" / "interventions.py").read_text()
    assert 'weigh = getattr(self, "intervention_weights", None)' in README
    assert 'weigh = getattr(self, "intervention_weights", None)' in source
