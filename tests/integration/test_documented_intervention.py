"""The documentation's example of an intervention works as it stands."""

import json
import re
from pathlib import Path

import lightning
import pytest
import yaml
from jsonargparse import ArgumentParser

import stagewise

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reweighting.md").read_text()


def python_blocks():
    return re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_example_of_the_page_changes_weights_at_its_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(python_blocks()[0], names)
    (file,) = tmp_path.rglob("intervention.json")
    found = json.loads(file.read_text())
    changes = [(change["step"], change["weights"]["rare"]) for change in found["changes"]]
    assert changes == [(100, 4.0), (150, 1.0)]
    share = float(names["is_rare"].float().mean())
    assert found["budget"]["groups"]["rare"] == pytest.approx(50 * (4 / (1 + 3 * share) - 1), rel=0.02)


def live_example():
    names = {name: getattr(stagewise, name) for name in stagewise.__all__}
    exec(python_blocks()[1], names)
    return names["live"]


def test_the_live_example_is_the_detector_of_the_experiment():
    callback = live_example()
    settings = yaml.safe_load((ROOT / "configs" / "intervention.yaml").read_text())
    assert callback.windows.signal == settings["live"]["signal"]
    # Direction and length aside, which the signal and the arm set.
    for name in ("min_z", "num_probes"):
        assert getattr(callback.windows.detector, name) == settings["live"]["detector"][name]


def test_the_yaml_of_the_live_example_is_the_same_callback():
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (callback,) = yaml.safe_load(block)["trainer"]["callbacks"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=lightning.pytorch.Callback)
    found = parser.instantiate_classes(parser.parse_object({"callback": callback})).callback
    expected = live_example()
    assert (found.windows, found.policy) == (expected.windows, expected.policy)


def test_the_lines_for_third_party_modules_are_those_that_the_tests_use():
    source = (Path(__file__).parents[1] / "callbacks" / "interventions.py").read_text()
    assert 'weigh = getattr(self, "intervention_weights", None)' in PAGE
    assert 'weigh = getattr(self, "intervention_weights", None)' in source
