from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from torch import nn

from stagewise.errors import InputError, LossContractError
from stagewise.influence.baselines import graddot
from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import Thresholds
from stagewise.probes.prober import Prober
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import RMSprop, SGLDConfig
from stagewise.sampling.data import ProbeData
from tests.sampling.test_chains import regression, squared
from tests.sampling.test_masks import Rest
from tests.short_chains import SHORT

SGLD = SHORT


def prober(module, batch, config=None, sgld=SGLD, **data):
    return Prober(module, squared, ProbeData(batch, **data), sgld=sgld, config=config or ProbeConfig(save_trace=True))


def test_probe_holds_what_the_contract_names(case):
    module, batch = case
    result, trace = prober(module, batch).probe(module, 5)
    assert trace.step == 5
    assert result["loss"].dims == ("chain", "draw", "sample")
    assert result["bif"].dims == ("part", "sample", "sample_j")
    assert result["graddot"].dims == ("group", "group_j")
    for name in ("sign", "units", "nbeta", "localization", "lr", "step", "seed", "version", "reference_step"):
        assert name in result.attrs
    assert (result.attrs["step"], result.attrs["nbeta"]) == (5, 10)


def test_second_probe_refers_to_the_first(case):
    module, batch = case
    watcher = prober(module, batch)
    first, _ = watcher.probe(module, 10)
    with torch.no_grad():
        module[2].bias += 1.0
    second, _ = watcher.probe(module, 20)
    assert np.isnan(first["signal"])
    assert second.attrs["reference_step"] == 10
    want = second["loss"].mean(("chain", "draw")) - first["loss"].mean(("chain", "draw"))
    np.testing.assert_allclose(second["shift"], want, atol=1e-5)
    assert second["signal"] == pytest.approx(float(np.linalg.norm(want)) / 2, rel=0.05)


def test_trace_and_baseline_can_be_left_out(case):
    module, batch = case
    result, _ = prober(module, batch, ProbeConfig(gradient_dot=False, save_trace=False)).probe(module, 1)
    assert not {"loss", "graddot", "chain"} & set(result.variables)


def test_group_loss_is_the_mean_at_the_training_weights(case):
    module, batch = case
    mask = torch.arange(10) < 4
    result, _ = prober(module, batch, groups={"few": mask}).probe(module, 1)
    want = squared(module, batch)[:4].mean().item()
    assert float(result["group_loss"].sel(group="few")) == pytest.approx(want, rel=1e-5)


def test_same_weights_give_the_same_probe(case):
    module, batch = case
    one, other = (prober(module, batch, ProbeConfig(chunk_size=size)).probe(module, 3)[0] for size in (None, 3))
    np.testing.assert_allclose(one["bif"], other["bif"], rtol=1e-3, atol=1e-8)


def test_probe_whose_chains_all_diverge_is_none_and_no_reference(case):
    module, batch = case
    watcher = prober(module, batch, sgld=SGLDConfig(lr=3.0, nbeta=1e4, localization=1.0, num_draws=5))
    result, trace = watcher.probe(module, 1)
    assert result is None
    assert len(trace.dropped) == 8


def test_loss_is_checked_before_the_first_probe(case):
    module, batch = case
    with pytest.raises(LossContractError, match="unreduced"):
        Prober(module, lambda m, b: squared(m, b).mean(), ProbeData(batch), sgld=SGLD, config=ProbeConfig())


def test_observed_set_beyond_the_memory_limit_is_refused_with_the_figure(case):
    module, batch = case
    with pytest.raises(InputError, match=r"needs about .* GiB .*; expected .*; observe fewer"):
        prober(module, batch, ProbeConfig(memory_limit_gib=1e-6))


def test_memory_is_refused_before_the_set_is_evaluated(case):
    module, batch = case
    sizes = []

    def counted(module, batch):
        sizes.append(len(batch[0]))
        return squared(module, batch)

    with pytest.raises(InputError, match="GiB"):
        Prober(module, counted, ProbeData(batch), sgld=SGLD, config=ProbeConfig(memory_limit_gib=1e-6))
    assert sizes == [2]


@pytest.mark.parametrize(
    "bad",
    [
        {"reference_ratio": 1.0},
        {"chunk_size": 0},
        {"memory_limit_gib": 0.0},
        {"min_prominence": 0.0},
        {"min_prominence": 1.1},
        {"min_prominence": float("nan")},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match=r"got .*; expected "):
        ProbeConfig(**bad)


@pytest.mark.parametrize(
    "data",
    [
        {"observed": torch.zeros(0, 3)},
        {"observed": torch.zeros(4, 3), "sampling": torch.zeros(0, 3)},
        {"observed": torch.zeros(4, 3), "groups": {"a": torch.zeros(4, dtype=torch.bool)}},
        {"observed": torch.zeros(4, 3), "groups": {"a": torch.ones(5, dtype=torch.bool)}},
        {"observed": torch.zeros(4, 3), "groups": {"a~b": torch.ones(4, dtype=torch.bool)}},
    ],
)
def test_unusable_data_is_refused(data):
    with pytest.raises(InputError, match=r"got .*; (expected|widen)"):
        ProbeData(**data)


DIAGNOSTICS = {
    "rhat_max",
    "ess_min",
    "rhat_groups",
    "ess_groups",
    "mcse_mean",
    "mcse_max",
    "chain_drift",
    "loss_rise",
    "chain_share",
    "draw_share",
    "end_distance",
    "gradient_over_eps",
    "minibatch_noise",
    "chains_dropped",
}


def test_diagnostics_and_flags_are_in_the_data_set(case):
    module, batch = case
    groups = {"few": torch.arange(10) < 4, "rest": torch.arange(10) >= 4}
    result, trace = prober(module, batch, groups=groups).probe(module, 1)
    assert set(result.data_vars) >= DIAGNOSTICS
    assert float(result["end_distance"]) == pytest.approx(trace.distance[:, -1].mean(), rel=1e-6)
    curves = np.stack([trace.loss[..., :4].mean(-1, dtype=float), trace.loss[..., 4:].mean(-1, dtype=float)], axis=-1)
    want = max(float(array_stats.rhat(curves[..., row], chain_axis=0, draw_axis=1)) for row in range(2))
    assert float(result["rhat_groups"]) == pytest.approx(want, rel=1e-6)
    assert "ess" in result.attrs["flags"]
    assert int(result["flagged"]) == len(result.attrs["flags"])
    assert str(result["flag_names"].item()).split(", ") == list(result.attrs["flags"])


def test_flagged_probe_is_a_reference_all_the_same(case):
    module, batch = case
    watcher = prober(module, batch)
    assert int(watcher.probe(module, 10)[0]["flagged"]) > 0
    assert watcher.probe(module, 20)[0].attrs["reference_step"] == 10


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_probe_that_is_not_finite_has_no_signal_and_is_no_reference(case, monkeypatch):
    module, batch = case
    watcher = prober(module, batch)
    watcher.probe(module, 10)
    real = ChainSampler.run

    def broken(*args, **kwargs):
        trace = real(*args, **kwargs)
        trace.loss[1, 3, 2] = np.inf
        return trace

    monkeypatch.setattr(ChainSampler, "run", broken)
    result, _ = watcher.probe(module, 20)
    assert list(result.attrs["flags"]) == ["not_finite"]
    assert np.isnan(result["signal"])
    monkeypatch.undo()
    assert watcher.probe(module, 30)[0].attrs["reference_step"] == 10


def test_gradient_product_that_is_not_finite_is_flagged(case, monkeypatch):
    module, batch = case
    monkeypatch.setattr(graddot, "gradient_dot", lambda *args, **kwargs: np.array([[np.nan]]))
    result, _ = prober(module, batch).probe(module, 20)
    assert list(result.attrs["flags"]) == ["not_finite"]


def test_product_of_groups_without_a_pair_is_no_reason_for_a_flag(case, monkeypatch):
    module, batch = case
    single = {f"g{row}": torch.arange(10) == row for row in range(10)}
    watcher = prober(module, batch, ProbeConfig(damped_influence=True), groups=single)
    result, _ = watcher.probe(module, 10, lr_sum=0.1)
    plain, _ = prober(module, batch).probe(module, 10)
    assert set(result.attrs["flags"]) == set(plain.attrs["flags"])
    for name in ("graddot", "tracin", "damped_influence"):
        np.testing.assert_array_equal(np.isnan(result[name]), np.eye(10, dtype=bool))
    wrong = result["graddot"].values.copy()
    wrong[3, 4] = np.nan
    monkeypatch.setattr(graddot, "gradient_dot", lambda *args, **kwargs: wrong)
    assert list(watcher.probe(module, 20, lr_sum=0.2)[0].attrs["flags"]) == ["not_finite"]


def test_thresholds_are_settings_of_the_probe(case):
    module, batch = case
    off = Thresholds(**{field.name: None for field in fields(Thresholds)})
    result, _ = prober(module, batch, ProbeConfig(thresholds=off)).probe(module, 1)
    assert result.attrs["flags"] == {}


def test_rms_gradient_is_held_against_the_eps_of_rmsprop(case, monkeypatch):
    module, batch = case
    real = ChainSampler.run

    def measured(*args, **kwargs):
        return replace(real(*args, **kwargs), gradient_rms=np.full(3, 0.02), minibatch_noise=0.4)

    monkeypatch.setattr(ChainSampler, "run", measured)
    adaptive = replace(SGLD, preconditioner=RMSprop(eps=0.1), num_burnin_steps=2)
    result, _ = prober(module, batch, sgld=adaptive).probe(module, 1)
    assert float(result["gradient_over_eps"]) == pytest.approx(0.2)
    assert "minibatch_noise" in result.attrs["flags"]
    plain, _ = prober(module, batch).probe(module, 1)
    assert np.isnan(plain["gradient_over_eps"])


def test_masked_probes_are_those_of_the_model_whose_other_weights_are_constants():
    batch = regression(num=12)
    module = nn.Linear(3, 1, bias=False).double()
    masks = {"weight": torch.tensor([[True, False, True]])}
    data = ProbeData(batch, groups={"few": torch.arange(12) < 4, "rest": torch.arange(12) >= 4})
    found = []
    for of, given in ((module, masks), (Rest(module.weight, 1), None)):
        config = ProbeConfig(damped_influence=True)
        watcher = Prober(of, squared, data, sgld=SGLD, config=config, masks=given)
        watcher.probe(of, 10)
        with torch.no_grad():
            of.weight[0, 0] += 1.0
        found.append(watcher.probe(of, 20)[0])
    assert [item.attrs["moved_weights"] for item in found] == [2, 2]
    for name in ("bif", "group_bif", "group_bif_se", "graddot", "damped_influence", "signal", "end_distance"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-9)


def test_masks_are_part_of_the_fingerprint(case):
    module, batch = case
    prints = []
    for masks in (None, {"0.bias": torch.arange(4) < 2}, {"0.bias": torch.arange(4) < 3}):
        watcher = Prober(module, squared, ProbeData(batch), sgld=SGLD, config=ProbeConfig(), masks=masks)
        prints.append(watcher.fingerprint())
    assert "masks" not in prints[0]
    assert prints[1].pop("masks") != prints[2].pop("masks")
    assert prints[0] == prints[1] == prints[2]


def test_masks_that_do_not_fit_are_refused(case):
    module, batch = case
    with pytest.raises(InputError, match="which the module does not have"):
        Prober(module, squared, ProbeData(batch), sgld=SGLD, config=ProbeConfig(), masks={"1.bias": torch.ones(1)})


def masked_squared(module, batch):
    return squared(module, batch[:2]), batch[2]


@pytest.mark.parametrize("masked", [[0, 1, 2, 3], [9], [0, 4, 5, 6, 7, 8, 9]])
@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_samples_without_any_loss_are_fine_wherever_they_stand(case, masked, chunk_size):
    """A whole chunk, or the first minibatch, may be masked; influence of the others does not depend on chunks."""
    module, (x, y) = case
    keep = torch.ones(10, dtype=torch.bool)
    keep[masked] = False
    data, config = ProbeData((x, y, keep)), ProbeConfig(chunk_size=chunk_size)
    result, trace = Prober(module, masked_squared, data, sgld=SGLD, config=config).probe(module, 1)
    whole, _ = Prober(module, masked_squared, data, sgld=SGLD, config=ProbeConfig()).probe(module, 1)
    assert len(trace.chains) == 3
    assert np.array_equal(trace.mask, keep.numpy())
    assert (trace.loss[:, :, ~keep.numpy()] == 0).all()
    assert (trace.loss[:, :, keep.numpy()] > 0).all()
    total = result["bif"].sel(part="total").values
    assert np.isfinite(total).all()
    np.testing.assert_allclose(total, whole["bif"].sel(part="total").values, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("which", "words"), [("observed", "an observed set .observed. of 10 samples"), ("sampling", "a sampling set")]
)
def test_a_set_without_any_loss_is_refused_by_its_setting(case, which, words):
    module, (x, y) = case
    none = (x, y, torch.zeros(10, dtype=torch.bool))
    every = (x, y, torch.ones(10, dtype=torch.bool))
    data = ProbeData(none, every) if which == "observed" else ProbeData(every, none)
    with pytest.raises(LossContractError, match=words + r".*no loss at all"):
        Prober(module, masked_squared, data, sgld=SGLD, config=ProbeConfig(chunk_size=3))


def test_a_loss_that_is_not_finite_in_the_sampling_set_is_refused_by_its_sample(case):
    module, (x, y) = case
    bad = y.clone()
    bad[2] = torch.nan
    with pytest.raises(LossContractError, match="in samples 2 of the sampling set"):
        Prober(module, squared, ProbeData((x, y), (x, bad)), sgld=SGLD, config=ProbeConfig(chunk_size=3))
