"""Defaults of probes in tests: neither pictures nor looks at the curvature."""

import inspect

import stagewise
from stagewise.callbacks.influence import InfluenceCallback
from stagewise.probes.config import ProbeConfig

QUICK = {"draw_matrices": False, "check_curvature": False}
"""Two thirds of the time of a small probe; tests that are about pictures or curvature are marked ``whole_probes``."""

for name in stagewise.__all__:
    getattr(stagewise, name)  # default arguments are made at import: before any test has other defaults

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


def begin():
    """Makes probes quick; before test modules are imported, since they make configurations then."""
    ProbeConfig.__init__.__defaults__, InfluenceCallback.__init__.__defaults__ = _defaults(QUICK)


def make_whole(monkeypatch, changes):
    """Gives probes the defaults that users have, but for some settings."""
    config, callback = _defaults(changes)
    monkeypatch.setattr(ProbeConfig.__init__, "__defaults__", config)
    monkeypatch.setattr(InfluenceCallback.__init__, "__defaults__", callback)
