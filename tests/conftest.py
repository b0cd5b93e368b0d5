"""Settings of every test."""

import inspect

import pytest
import torch

import stagewise
from stagewise.callbacks.influence import InfluenceCallback
from stagewise.probes.config import ProbeConfig

torch.set_num_threads(1)

for name in stagewise.__all__:
    getattr(stagewise, name)  # default arguments are made at import: before any test has other defaults

QUICK = {"draw_matrices": False, "check_curvature": False}
"""Two thirds of the time of a small probe; tests that are about pictures or curvature are marked ``whole_probes``."""


@pytest.fixture(autouse=True)
def seeded():
    """No test depends on which ones ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def quick_probes(request, monkeypatch):
    """Other defaults of two settings, which any test can still give by name."""
    if request.node.get_closest_marker("whole_probes"):
        return
    init = ProbeConfig.__init__
    names = [it.name for it in inspect.signature(init).parameters.values() if it.default is not inspect.Parameter.empty]
    defaults = dict(zip(names, init.__defaults__, strict=True)) | QUICK
    monkeypatch.setattr(init, "__defaults__", tuple(defaults.values()))
    given = InfluenceCallback.__init__.__defaults__
    monkeypatch.setattr(
        InfluenceCallback.__init__,
        "__defaults__",
        tuple(ProbeConfig() if isinstance(it, ProbeConfig) else it for it in given),
    )
