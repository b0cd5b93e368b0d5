import numpy as np
import pytest
import torch
import xarray as xr

from stagewise.influence.split import Centering
from stagewise.probes.assembly import assemble
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.sampling.data import ProbeData
from tests.sampling.test_chains import squared
from tests.short_chains import SHORT

SGLD = SHORT


def prober(module, batch, **settings):
    groups = {"few": torch.arange(10) < 4, "rest": torch.arange(10) >= 4}
    return Prober(module, squared, ProbeData(batch, groups=groups), sgld=SGLD, config=ProbeConfig(**settings))


def move(module):
    with torch.no_grad():
        module[0].weight.mul_(1.1)


@pytest.mark.parametrize("settings", [{}, {"centering": Centering.step, "save_trace": False}])
def test_assembled_later_it_is_the_probe_bit_for_bit(case, settings):
    module, batch = case
    watcher, later = prober(module, batch, **settings), prober(module, batch, **settings)
    probes, measured = [], []
    for step in (1, 2, 4):
        probes.append(watcher.probe(module, step, lr_sum=0.1 * step)[0])
        measured.append(later.measure(module, step, lr_sum=0.1 * step)[0])
        move(module)
    references = [None, *(item.features for item in measured[:-1])]
    for probe, item, reference in zip(probes, measured, references, strict=True):
        found = assemble(item, reference, later.groups, centering=settings.get("centering", Centering.pooled))
        xr.testing.assert_identical(found.drop_vars("seconds"), probe.drop_vars("seconds"))
        assert found["seconds"] > 0


def test_what_is_measured_does_not_depend_on_earlier_probes(case):
    module, batch = case
    watcher = prober(module, batch)
    watcher.probe(module, 1)
    move(module)
    after = watcher.measure(module, 5)[0]
    alone = prober(module, batch).measure(module, 5)[0]
    np.testing.assert_array_equal(after.features.samples, alone.features.samples)
    xr.testing.assert_identical(after.own.drop_vars("seconds"), alone.own.drop_vars("seconds"))


def test_measuring_and_assembling_make_no_reference(case):
    module, batch = case
    watcher = prober(module, batch)
    watcher.assemble(watcher.measure(module, 1)[0], None)
    assert watcher.probe(module, 5)[0].attrs["reference_step"] == 5


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_is_not_usable_and_has_no_signal(case, monkeypatch):
    module, batch = case
    watcher = prober(module, batch)
    first = watcher.measure(module, 1)[0]
    move(module)
    monkeypatch.setattr(
        "stagewise.influence.baselines.graddot.gradient_dot", lambda *args, **kwargs: np.full((2, 2), np.nan)
    )
    second = watcher.measure(module, 2)[0]
    assert (first.usable, second.usable) == (True, False)
    assert np.isnan(watcher.assemble(second, first.features)["signal"])
