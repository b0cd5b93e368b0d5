"""Flags of probes with unreliable chains: in words, in counts, in the files."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stagewise import InfluenceCallback, ProbeConfig, SGLDConfig, open_run
from stagewise.callbacks.run_end import outcomes
from stagewise.probes.flags import Thresholds
from stagewise.probes.history import Record
from stagewise.sampling.chains import ChainSampler
from tests.callbacks.runs import EVERY_2, SGLD, Regression, fit, regression_data


def fit_and_listen(folder, sgld=SGLD, probe=ProbeConfig(), max_steps=6):  # noqa: B008
    # What is said of the settings is in test_calibration.py.
    probe = replace(probe, check_curvature=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(folder, Regression(), regression_data(), InfluenceCallback(EVERY_2, sgld, probe), max_steps)
    return trainer, [str(warning.message) for warning in caught if "stagewise" in str(warning.message)]


ONLY_ESS = Thresholds(
    rhat_max=None,
    sample_rhat_max=None,
    sample_ess_min=None,
    chain_share_max=None,
    draw_share_max=None,
    drift_max=None,
    loss_fall_max=None,
)


def test_each_kind_is_reported_once_and_counted_at_the_end(tmp_path):
    trainer, messages = fit_and_listen(tmp_path, probe=ProbeConfig(thresholds=ONLY_ESS))
    first, last = messages
    assert "the probe at step 2 is flagged;" in first
    assert "\n- ess: got effective draws" in first
    assert "sgld.num_draws" in first
    assert "flagged 3 of 3 probes (ess 3)" in last
    summary = json.loads(open_run(trainer.log_dir).attrs["summary"])
    assert summary["flags"] == {"ess": 3}
    assert summary["flagged_steps"] == [2, 4, 6]
    assert summary["probes_flagged"] == 3
    assert float(trainer.callback_metrics["sampler/flagged"]) == 1.0


def test_kinds_of_one_probe_are_reported_together(tmp_path):
    _, (first, *_) = fit_and_listen(tmp_path, max_steps=2)
    kinds = [line.split(":")[0] for line in first.splitlines()[1:]]
    assert {"- rhat", "- ess", "- sample_ess"} <= set(kinds)
    assert len(kinds) == len(set(kinds))


def test_flags_are_in_the_files_and_the_curves(tmp_path):
    trainer, _ = fit_and_listen(tmp_path, probe=ProbeConfig(thresholds=ONLY_ESS))
    run = open_run(trainer.log_dir)
    assert run["flagged"].values.tolist() == [1, 1, 1]
    assert run["flag_names"].values.tolist() == ["ess", "ess", "ess"]
    events = EventAccumulator(trainer.log_dir, size_guidance={"tensors": 0})
    events.Reload()
    assert [event.value for event in events.Scalars("sampler/flagged")] == [1.0, 1.0, 1.0]
    *_, text = events.Tensors("run/summary/text_summary")
    assert "3 of 3 probes (ess 3)" in text.tensor_proto.string_val[0].decode()


def test_reliable_probes_cause_no_message(tmp_path):
    settled = SGLDConfig(
        lr=2e-3,
        nbeta=10,
        localization=200,
        num_chains=4,
        num_draws=60,
        num_burnin_steps=30,
        num_steps_bw_draws=4,
        drift="plain",
    )
    trainer, messages = fit_and_listen(
        tmp_path, settled, ProbeConfig(thresholds=Thresholds(loss_fall_max=None)), max_steps=2
    )
    assert messages == []
    assert float(trainer.callback_metrics["sampler/flagged"]) == 0.0


def test_probe_that_lost_all_its_chains_counts_as_flagged(tmp_path):
    trainer, _ = fit_and_listen(tmp_path, SGLDConfig(lr=3.0, nbeta=1e4, localization=1.0, num_draws=4), max_steps=2)
    assert float(trainer.callback_metrics["sampler/flagged"]) == 1.0


def test_the_share_of_flagged_probes_includes_lost_ones():
    record = Record(steps=[2, 6], flagged_steps=[6], failed_steps=[4, 8])
    assert outcomes(record, [])["sampler/flagged_share"] == 3 / 4
    assert outcomes(Record(steps=[2]), [])["sampler/flagged_share"] == 0


def test_a_dropped_chain_flags_its_probe(tmp_path):
    """Uses a limit on the rise between the rises of the chains."""
    probe = ProbeConfig(thresholds=replace(ONLY_ESS, ess_min=None, loss_rise_max=None), save_trace=True)
    noisy = replace(SGLD, nbeta=0.0, lr=0.05)
    calm = open_run(fit_and_listen(tmp_path / "calm", noisy, probe, max_steps=2)[0].log_dir, trace=True)
    rises = (calm["loss"].mean("sample") - calm["anchor_loss"].mean("sample")).max("draw").values[0]
    *_, second, first = sorted(rises)
    assert 0 < second < first
    cut = replace(noisy, max_loss_rise=float(first + second) / 2)
    trainer, _ = fit_and_listen(tmp_path / "cut", cut, probe, max_steps=2)
    run = open_run(trainer.log_dir)
    assert run["flag_names"].values.tolist() == ["chains_dropped"]
    assert int(run["chains_dropped"][0]) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_probe_that_is_not_finite_is_excluded_and_training_continues(tmp_path, monkeypatch):
    real = ChainSampler.run

    def broken_at_4(self, step, *args, **settings):
        trace = real(self, step, *args, **settings)
        if step == 4:
            trace.loss[0, 2, 5] = np.nan
        return trace

    monkeypatch.setattr(ChainSampler, "run", broken_at_4)
    module = Regression()
    callback = InfluenceCallback(EVERY_2, SGLD, ProbeConfig(save_trace=True))
    trainer = fit(tmp_path, module, regression_data(), callback, 8)
    assert trainer.global_step == 8
    assert torch.isfinite(module.layer.weight).all()
    run = open_run(trainer.log_dir)
    assert run["step"].values.tolist() == [2, 4, 6, 8]
    assert run["reference_step"].values.tolist() == [2, 2, 2, 6]
    assert np.isfinite(run["signal"].values).tolist() == [False, False, True, True]
    assert run["flag_names"].values[1] == "not_finite"
    assert json.loads(run.attrs["summary"])["flags"]["not_finite"] == 1
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    assert [event.step for event in events.Scalars("sampler/flagged")] == [2, 4, 6, 8]
    assert 4 not in [event.step for event in events.Scalars("influence/within/all~all")]
