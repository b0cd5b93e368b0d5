"""Path of one probe from ``on_train_batch_end`` to its file, readable top-down in few stops."""

import sys
from pathlib import Path

import pytest

import stagewise
from stagewise import InfluenceCallback
from stagewise.runs.store import ProbeStore
from tests.callbacks.runs import EVERY_2, SGLD, Regression, fit, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")

PACKAGE = Path(stagewise.__path__[0])
FOUNDATIONS = {"errors", "checks", "files", "structure", "batches", "losses", "isolation"}
WALKED = {"callbacks", "probes", "runs"}


def room(code):
    return Path(code.co_filename).relative_to(PACKAGE).parts[0].removesuffix(".py")


def properties():
    """Returns the code of properties, which read like attributes."""
    found = set()
    for name, module in list(sys.modules.items()):
        if name.startswith("stagewise"):
            for kind in [value for value in vars(module).values() if isinstance(value, type)]:
                held = (getattr(var, "fget", None) or getattr(var, "func", None) for var in vars(kind).values())
                found |= {item.__code__ for item in held if hasattr(item, "__code__")}
    return found


class Walk:
    """Called functions of the package, once each; only entry points of formulas and samplers, none of foundations."""

    def __init__(self):
        self.stops, self.to_disk, self._passed = [], [], properties()
        self._depth, self._closed = 0, None

    def __call__(self, frame, event, _):
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(str(PACKAGE)):
            return
        if event == "return":
            self._depth -= 1
            if code is ProbeStore.write.__code__:
                self.to_disk = [stop.co_qualname for stop in self.stops]
            return
        self._depth += 1
        if self._closed is not None and self._depth > self._closed:
            return
        self._closed = None
        if code in self._passed or room(code) in FOUNDATIONS:
            return
        if room(code) not in WALKED:
            self._closed = self._depth
        if code not in self.stops and not code.co_name.startswith(("<", "__")):
            self.stops.append(code)


def test_a_probe_reaches_disk_in_at_most_40_stops(tmp_path):
    walk = Walk()

    class Walked(InfluenceCallback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == 4:
                sys.setprofile(walk)
            try:
                super().on_train_batch_end(trainer, module, *args)
            finally:
                sys.setprofile(None)

    fit(tmp_path, Regression(), regression_data(), Walked(EVERY_2, SGLD))
    assert walk.to_disk[0] == "InfluenceCallback.on_train_batch_end"
    assert {"ChainSampler.run", "ProbeStore.write"} < set(walk.to_disk)
    assert 20 < len(walk.to_disk) <= 40, walk.to_disk
