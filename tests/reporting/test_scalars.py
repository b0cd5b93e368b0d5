import math
from dataclasses import fields

import pytest
import torch

from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import Thresholds
from stagewise.probes.prober import Prober
from stagewise.reporting.scalars import probe_scalars
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from tests.sampling.test_chains import squared

OFF = Thresholds(**{field.name: None for field in fields(Thresholds)})
"""Few draws: whether z-scores are shown is another matter."""


def two_probes(num_chains):
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    groups = {"a": torch.arange(6) < 3, "b": torch.arange(6) >= 3}
    data = ProbeData((torch.randn(6, 3), torch.randn(6, 1)), groups=groups)
    sgld = SGLDConfig(lr=1e-3, nbeta=10, localization=10, num_chains=num_chains, num_draws=8)
    prober = Prober(module, squared, data, sgld=sgld, config=ProbeConfig(thresholds=OFF))
    first = prober.probe(module, 1)[0]
    with torch.no_grad():
        module.bias += 1
    return first, prober.probe(module, 2)[0]


def test_tags_are_those_of_the_contract():
    first, second = (probe_scalars(probe) for probe in two_probes(3))
    for part in ("within", "drift", "between", "total"):
        for pair in ("a~a", "a~b", "b~b"):
            assert f"influence/{part}/{pair}" in second
        assert f"influence/{part}/trace" in second
    for tag in (
        "influence/between_share",
        "influence/flip_fraction",
        "influence/z_median",
        "sampler/rhat_max",
        "sampler/ess_min",
        "sampler/drift",
        "sampler/loss_rise",
        "sampler/seconds",
        "sampler/rhat_groups",
        "sampler/ess_groups",
        "sampler/mcse_mean",
        "sampler/mcse_max",
        "sampler/chain_share",
        "sampler/draw_share",
        "sampler/distance",
        "sampler/flagged",
        "transition/signal",
        "transition/threshold",
        "baseline/graddot/a~b",
        "influence/loss/a",
    ):
        assert tag in second
    assert not any(tag.startswith(("influence/between", "influence/total", "transition")) for tag in first)
    assert "influence/within/a~a" in first


def test_values_are_those_of_the_probe_and_add_up():
    _, probe = two_probes(3)
    values = probe_scalars(probe)
    assert values["influence/within/a~b"] == float(probe["group_bif"].sel(part="within", group="a", group_j="b"))
    assert values["influence/within/trace"] < 0
    for name in ("a~a", "a~b", "trace"):
        parts = sum(values[f"influence/{part}/{name}"] for part in ("within", "drift", "between"))
        assert parts == pytest.approx(values[f"influence/total/{name}"], abs=1e-10)


def test_what_is_undefined_is_left_out_and_never_nan():
    _, probe = two_probes(1)
    values = probe_scalars(probe)
    assert all(math.isfinite(value) for value in values.values())
    assert "influence/within_se/a~a" not in values
    assert "influence/z_median" not in values


def test_diagnostics_go_under_their_own_tags():
    _, probe = two_probes(3)
    probe["gradient_over_eps"], probe["minibatch_noise"] = 0.01, 0.3
    values = probe_scalars(probe)
    for tag, name in (
        ("sampler/distance", "end_distance"),
        ("sampler/drift", "chain_drift"),
        ("sampler/gradient_over_eps", "gradient_over_eps"),
        ("sampler/minibatch_noise", "minibatch_noise"),
        ("sampler/flagged", "flagged"),
        ("sampler/rhat_max", "rhat_max"),
        ("sampler/rhat_groups", "rhat_groups"),
    ):
        assert values[tag] == float(probe[name])
    assert values["sampler/rhat_groups"] != values["sampler/rhat_max"]


def test_scores_of_group_influence_are_logged_where_the_probe_has_them():
    first, probe = two_probes(3)
    values = probe_scalars(probe)
    for part in ("within", "between", "total"):
        name, error = f"influence/{part}/a~b", f"influence/{part}_se/a~b"
        assert values[f"influence/{part}_z/a~b"] == pytest.approx(values[name] / values[error])
    assert "influence/within_z/a~b" in probe_scalars(first)
    assert "influence/between_z/a~b" not in probe_scalars(first)
    assert not any("_z/" in tag for tag in probe_scalars(probe.drop_vars("group_bif_z")))
    assert not any("_z/" in tag for tag in probe_scalars(two_probes(1)[1]))
