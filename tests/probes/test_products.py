"""What a probe measures beside samples and groups, from one set of chains."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.influence.position_influence import position_influence
from stagewise.influence.split import Centering
from stagewise.influence.token_bif import token_bif
from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import Thresholds
from stagewise.probes.prober import Prober
from stagewise.runs.open import open_run
from stagewise.runs.store import ProbeStore
from stagewise.sampling.data import ProbeData
from tests.short_chains import SHORT

SGLD = replace(SHORT, num_chains=4, num_draws=20)
OFF = Thresholds(**{field.name: None for field in fields(Thresholds)})
"""Few draws: whether z-scores are shown is another matter."""
BOTH = {"position_bins": [0, 2, 6], "token_samples": [7, 2], "thresholds": OFF}
GENERATOR = torch.Generator().manual_seed(0)
MASK = torch.rand(10, 6, generator=GENERATOR) < 0.9
BATCH = (torch.randn(10, 3, generator=GENERATOR), torch.randn(10, 6, generator=GENERATOR), MASK)
GROUPS = {"few": torch.arange(10) < 4, "some": torch.rand(10, 6, generator=GENERATOR) < 0.5}


def tokens(module, batch):
    return (module(batch[0]) - batch[1]).square(), batch[2]


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 6))


def probes(config, sgld=SGLD):
    """Two probes, the second of which refers to the first."""
    net = module()
    watcher = Prober(net, tokens, ProbeData(BATCH, groups=GROUPS), sgld=sgld, config=config)
    first, _ = watcher.probe(net, 10)
    with torch.no_grad():
        net[2].bias += 0.5
    second, _ = watcher.probe(net, 20)
    return watcher, first, second


@pytest.fixture(scope="module")
def more():
    """With a trace and all products."""
    return probes(ProbeConfig(**BOTH, save_trace=True))


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_chains_that_keep_no_trace_give_all_products_that_a_trace_gives(engine, more):
    sgld = replace(SGLD, engine=engine)
    watcher, first, second = more if engine == SGLD.engine else probes(ProbeConfig(**BOTH, save_trace=True), sgld)
    _, _, streamed = probes(ProbeConfig(**BOTH, save_trace=False), sgld)
    assert "loss" not in streamed
    want = position_influence(
        second["loss"].values, watcher.groups, MASK.numpy(), [0, 2, 6], reference=first["loss"].values
    )
    for name in want:
        assert streamed[name].attrs == want[name].attrs
        np.testing.assert_allclose(streamed[name], want[name], rtol=1e-6, atol=1e-12, err_msg=name)
    chosen = second["loss"].values[:, :, [7, 2]].astype(np.float64)
    for part, centering in (("within", Centering.chain), ("total", Centering.pooled)):
        got = streamed["token_bif"].sel(token_part=part)
        want = token_bif(chosen, centering=centering).values
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6 * np.abs(want).max())
    assert streamed["chosen"].values.tolist() == [7, 2]
    assert (streamed["token_bif_se"].values >= 0).all()


def test_what_is_asked_for_beside_changes_nothing_else(more):
    _, _, plain = probes(ProbeConfig(thresholds=OFF, save_trace=True))
    _, _, more = more
    assert set(more.data_vars) - set(plain.data_vars) == {
        f"{name}{end}"
        for name in ("token_bif", "position_bif")
        for end in ("", "_se", "_correlation", "_correlation_se")
    } | {"position_bif_z"}
    for name in set(plain.data_vars) - {"seconds", "flag_names", "llc_note"}:
        np.testing.assert_allclose(more[name], plain[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert more.attrs == plain.attrs


def test_runs_with_other_bins_do_not_compare():
    net, data = module(), ProbeData(BATCH, groups=GROUPS)
    one, same, other = (
        Prober(net, tokens, data, sgld=SGLD, config=ProbeConfig(position_bins=bins)).fingerprint()
        for bins in (2, [0, 3, 6], 3)
    )
    assert one == same
    assert one["data"] != other["data"]


def test_all_products_are_stored_and_tokens_are_loaded_on_demand(tmp_path, more):
    store = ProbeStore(tmp_path / "influence.zarr")
    _, first, second = more
    for probe in (first, second):
        store.write(probe)
    run = open_run(tmp_path)
    assert "token_bif" not in run.variables
    assert run["position_bif"].dims == ("step", "part", "group", "position")
    assert run["position_end"].values.tolist() == [2, 6]
    np.testing.assert_array_equal(run["group_bif_correlation_se"].sel(step=20), second["group_bif_correlation_se"])
    np.testing.assert_array_equal(run["bif_se"].sel(step=10), first["bif_se"])
    whole = open_run(tmp_path, trace=True)
    np.testing.assert_array_equal(whole["token_bif_se"].sel(step=20), second["token_bif_se"])
    assert whole["token_part"].values.tolist() == ["within", "drift", "total"]


@pytest.mark.parametrize(
    "bad",
    [
        {"position_bins": 0},
        {"position_bins": [3]},
        {"token_samples": []},
        {"token_samples": [1, 1]},
        {"token_samples": [-1]},
    ],
)
def test_bad_products_are_refused(bad):
    with pytest.raises(InputError, match=r"got .*; expected .*; "):
        ProbeConfig(**bad)


def test_bins_and_samples_beyond_the_data_are_refused_before_the_first_probe():
    for bad, words in (({"position_bins": 7}, "7 position bins"), ({"token_samples": [10]}, "positions below 10")):
        with pytest.raises(InputError, match=words):
            Prober(module(), tokens, ProbeData(BATCH), sgld=SGLD, config=ProbeConfig(**bad))
