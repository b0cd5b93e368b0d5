"""The learning coefficient of a probe: from the draws of influence, and from chains of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from stagewise.errors import InputError
from stagewise.probes.carried import Carried
from stagewise.probes.config import ProbeConfig
from stagewise.probes.flags import Thresholds
from stagewise.probes.llc_config import LLCConfig
from stagewise.probes.prober import Prober
from stagewise.sampling.chains import run_chains
from stagewise.sampling.data import ProbeData
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.share import ChainShare
from tests.short_chains import SHORT

SGLD = replace(SHORT, num_draws=6, drift="control_variate")
OWN = LLCConfig(lr=2e-3, nbeta=40.0, localization=5.0, num_chains=4, num_draws=9, num_burnin_steps=7)
GENERATOR = torch.Generator().manual_seed(0)
MASK = torch.rand(8, 5, generator=GENERATOR) < 0.8
BATCH = (torch.randn(8, 3, generator=GENERATOR), torch.randn(8, 5, generator=GENERATOR), MASK)
GROUPS = {"few": torch.arange(8) < 3, "tokens": MASK & (torch.arange(5) > 2)}


def tokens(module, batch):
    return (module(batch[0]) - batch[1]).square(), batch[2]


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))


def prober(llc=None, *, sgld=SGLD, share=None, masks=None, **config):
    net = module()
    more = {} if share is None else {"share": share}
    config = ProbeConfig(llc=llc or LLCConfig(), **config)
    watcher = Prober(net, tokens, ProbeData(BATCH, groups=GROUPS), sgld=sgld, config=config, masks=masks, **more)
    return net, watcher


def probe(llc=None, **more):
    net, watcher = prober(llc, **more)
    return watcher.probe(net, 3)[0]


def by_hand(sgld, masks=None):
    """Plain loops over a run of chains: nbeta times the rise of each mean loss, by chain."""
    net = module()
    trace = run_chains(net, tokens, observed=BATCH, sampling=BATCH, config=sgld, step=3, masks=masks)
    present = MASK.numpy()
    wanted = {"all": present, "few": GROUPS["few"][:, None].numpy() & present, "tokens": GROUPS["tokens"].numpy()}
    at_anchor = tokens(net, BATCH)[0].detach().numpy()
    return {
        name: [
            sgld.nbeta * np.mean([loss[item].mean() - at_anchor[item].mean() for loss in chain]) for chain in trace.loss
        ]
        for name, item in wanted.items()
    }


def check(found, sgld, masks=None):
    want = by_hand(sgld, masks)
    for name, chains in want.items():
        got = found["llc"] if name == "all" else found["group_llc"].sel(group=name)
        error = found["llc_se"] if name == "all" else found["group_llc_se"].sel(group=name)
        assert float(got) == pytest.approx(np.mean(chains), rel=1e-3, abs=1e-5)
        assert float(error) == pytest.approx(np.std(chains, ddof=1) / np.sqrt(len(chains)), rel=1e-3)
    assert int(found["llc_chains"]) == sgld.num_chains


@pytest.mark.parametrize("save_trace", [True, False])
def test_without_settings_it_is_that_of_the_draws_of_influence(save_trace):
    found = probe(save_trace=save_trace)
    check(found, SGLD)
    assert found["llc"].attrs["chains"] == "those of influence"
    assert found["llc"].attrs["nbeta"] == 10
    assert "llc_seconds" not in found


def test_settings_of_its_own_are_chains_of_its_own_and_change_nothing_else():
    found, plain = probe(OWN), probe()
    own = replace(
        SGLD, lr=2e-3, nbeta=40.0, localization=5.0, num_chains=4, num_draws=9, num_burnin_steps=7
    )  # the rest as influence has it
    check(found, own)
    assert found["llc"].attrs["chains"] == "its own"
    assert (found["llc"].attrs["nbeta"], found["llc"].attrs["localization"]) == (40, 5)
    assert float(found["seconds"]) > float(found["llc_seconds"]) > 0
    assert np.isfinite(float(found["llc_rhat"]))
    for name in set(plain.data_vars) - {"seconds", "flag_names"}:
        if "llc" not in name:
            np.testing.assert_array_equal(found[name], plain[name], err_msg=name)
    assert set(found.data_vars) - set(plain.data_vars) == {
        "llc_rhat", "llc_ess", "llc_chains_dropped", "llc_seconds"
    }  # fmt: skip


def test_it_can_be_left_out():
    found = probe(LLCConfig(enabled=False, nbeta=30.0))
    assert not [name for name in found.data_vars if "llc" in name]


def test_of_a_component_it_is_that_of_its_weights():
    masks = {"2.weight": torch.arange(20).view(5, 4) % 3 == 0}
    for llc, sgld in ((None, SGLD), (LLCConfig(num_draws=20), replace(SGLD, num_draws=20))):
        check(probe(llc, masks=masks), sgld, masks)


def test_processes_that_share_its_chains_find_what_one_finds():
    alone, sent = probe(OWN), []

    def keep(work):
        sent.append(work())

    net, other = prober(OWN, share=ChainShare(1, 2, collect=keep))
    assert other.measure(net, 3)[0] is None
    net, first = prober(OWN, share=ChainShare(0, 2, collect=lambda work: [work(), sent.pop(0)]))
    measured, _ = first.measure(net, 3)
    assert not sent
    for name in measured.own.data_vars:
        if "llc" in name and name != "llc_seconds":
            np.testing.assert_array_equal(measured.own[name], alone[name], err_msg=name)
    with pytest.raises(InputError, match="at least one for each of 2 processes"):
        prober(LLCConfig(num_chains=1), share=ChainShare(0, 2))


def test_its_chains_run_in_the_engine_of_those_of_influence_and_again_give_the_same():
    net, watcher = prober(OWN, sgld=replace(SGLD, engine="auto"))
    watcher.probe(net, 3)
    again, _ = watcher.probe(net, 5)
    # A run that is resumed before its second probe, with the engine that was chosen.
    resumed_net, sgld = module(), replace(SGLD, engine="auto").require_resolved()
    resumed = Prober.over(resumed_net, watcher.subject, sgld, Carried(1.15), engine=watcher.engine)
    fresh, _ = resumed.probe(resumed_net, 5)
    assert float(fresh["llc"]) == float(again["llc"])
    assert float(fresh["llc_se"]) == float(again["llc_se"])


def test_common_noise_is_its_too():
    net, watcher = prober(OWN, sgld=replace(SGLD, common_noise=False))
    values = [float(watcher.probe(net, step)[0]["llc"]) for step in (3, 5)]
    assert values[0] != values[1]
    net, watcher = prober(OWN)
    values = [float(watcher.probe(net, step)[0]["llc"]) for step in (3, 5)]
    assert values[0] == values[1]


def test_resolved_numbers_are_its_where_it_has_none_of_its_own():
    net, watcher = prober(LLCConfig(nbeta=40.0, localization=5.0))
    # The target is at most four times as steep: the step is a quarter, and the burn-in follows from it.
    check(
        watcher.probe(net, 3)[0],
        replace(SGLD, nbeta=40.0, localization=5.0, lr=2.5e-4, num_burnin_steps=500),
    )


@pytest.mark.parametrize(
    ("own", "lr", "burnin"),
    [
        ({"nbeta": 30.0}, 1e-3 / 3, "auto"),
        ({"localization": 20.0}, 5e-4, "auto"),
        ({"localization": 1.0}, 1e-3, "auto"),
        ({"localization": 5.0, "nbeta": 2.0}, 2e-3, "auto"),
        ({"lr": 1e-4, "nbeta": 30.0, "num_burnin_steps": 7}, 1e-4, 7),
        ({"num_draws": 30}, 1e-3, 2),
    ],
)
def test_a_step_that_is_not_given_is_in_no_direction_longer_than_that_of_influence(own, lr, burnin):
    found = LLCConfig(**own).own_sgld(SGLD)
    assert found.lr == pytest.approx(lr)
    assert found.num_burnin_steps == burnin
    if "lr" not in own:
        for curvature in (0.0, 0.1, 1.0, 100.0):
            steep, before = (item.lr * (item.nbeta * curvature + item.localization) for item in (found, SGLD))
            assert steep <= before * (1 + 1e-12)


def test_with_ekfac_the_step_stays_and_before_it_is_settled_it_is_auto():
    ekfac = replace(SGLD, lr=1.0, preconditioner=EKFAC())
    assert LLCConfig(nbeta=30.0).own_sgld(ekfac).lr == 1.0
    assert LLCConfig(nbeta=30.0).own_sgld(replace(SGLD, lr="auto")).lr == "auto"
    assert LLCConfig(nbeta=30.0).own_sgld(replace(SGLD, localization="auto")).lr == pytest.approx(1e-3 / 3)
    assert LLCConfig().own_sgld(SGLD) is None


def test_runs_with_other_own_settings_do_not_compare_and_without_any_they_are_as_before():
    plain, own, other = (prober(item)[1].fingerprint() for item in (None, OWN, replace(OWN, nbeta=50.0)))
    assert "llc" not in plain
    assert own["llc"] != other["llc"]
    assert prober(LLCConfig(enabled=False))[1].fingerprint() == plain


def test_what_stands_in_the_way_is_told_in_words():
    assert "R-hat" in str(probe(OWN, thresholds=Thresholds(rhat_max=1.0))["llc_note"].item())
    quiet = probe(OWN, thresholds=Thresholds(rhat_max=None))["llc_note"].item()
    assert "R-hat" not in quiet


def test_own_chains_that_all_diverge_leave_the_rest():
    found = probe(LLCConfig(lr=10.0, localization=0.1))
    assert np.isnan(float(found["llc"]))
    assert np.isnan(found["group_llc"]).all()
    assert int(found["llc_chains"]) == 0
    assert int(found["llc_chains_dropped"]) == 3
    assert np.isfinite(found["group_bif"]).all()
    assert "diverged" in str(found["llc_note"].item())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"nbeta": 0.0}, "llc.nbeta=0.0; expected a finite number > 0 or null"),
        ({"lr": float("nan")}, "llc.lr=nan"),
        ({"localization": -1.0}, "llc.localization=-1.0; expected a finite number >= 0 or null"),
        ({"num_draws": 1}, "llc.num_draws=1; expected a whole number >= 2 or null"),
        ({"num_chains": 2.0}, "llc.num_chains=2.0"),
        ({"num_steps_bw_draws": 0}, "llc.num_steps_bw_draws=0"),
        ({"num_burnin_steps": -1}, "llc.num_burnin_steps=-1"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        LLCConfig(**settings)


def test_a_step_too_large_for_its_localization_is_refused_before_any_probe():
    with pytest.raises(InputError, match=r"lr \* localization"):
        prober(LLCConfig(lr=1e-3, localization=1e5))


def test_settings_are_read_from_the_command_line_and_from_yaml(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ProbeConfig, "probe")
    parser.add_argument("-c", action="config")
    file = tmp_path / "settings.yaml"
    file.write_text("probe:\n  llc:\n    nbeta: 30\n    num_draws: 50\n")
    parsed = parser.instantiate(parser.parse_args(["-c", str(file), "--probe.llc.localization", "4"]))
    assert parsed.probe.llc == LLCConfig(nbeta=30.0, num_draws=50, localization=4.0)
