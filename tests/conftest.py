"""Settings of every test."""

import inspect
import os

import pytest
import torch
from hypothesis import settings

import stagewise
from stagewise.callbacks.influence import InfluenceCallback
from stagewise.probes.config import ProbeConfig

torch.set_num_threads(1)

# The same examples on every machine; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

for name in stagewise.__all__:
    getattr(stagewise, name)  # default arguments are made at import: before any test has other defaults

QUICK = {"draw_matrices": False, "check_curvature": False}
"""Two thirds of the time of a small probe; tests that are about pictures or curvature are marked ``whole_probes``."""

_NAMES = [
    parameter.name
    for parameter in inspect.signature(ProbeConfig.__init__).parameters.values()
    if parameter.default is not inspect.Parameter.empty
]
_OWN, _OF_CALLBACK = ProbeConfig.__init__.__defaults__, InfluenceCallback.__init__.__defaults__


def _defaults(changes):
    """Defaults of both, with some settings of the probes changed."""
    config = dict(zip(_NAMES, _OWN, strict=True)) | changes
    probe = ProbeConfig(**config)
    return tuple(config.values()), tuple(probe if isinstance(value, ProbeConfig) else value for value in _OF_CALLBACK)


# Here and not in a fixture: test modules make configurations when they are imported, and fixtures of a module before
# those of a test.
ProbeConfig.__init__.__defaults__, InfluenceCallback.__init__.__defaults__ = _defaults(QUICK)


@pytest.fixture(autouse=True)
def seeded():
    """No test depends on which ones ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def whole_probes(request, monkeypatch):
    """Probes with the defaults that users have, but for the settings that the mark names."""
    mark = request.node.get_closest_marker("whole_probes")
    if mark is not None:
        config, callback = _defaults(mark.kwargs)
        monkeypatch.setattr(ProbeConfig.__init__, "__defaults__", config)
        monkeypatch.setattr(InfluenceCallback.__init__, "__defaults__", callback)
