"""Observed samples whose loss is not finite, in a run of the callback."""

import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule, SampleMatrices, SGLDConfig, open_run
from stagewise.callbacks.ranks import Ranks
from stagewise.callbacks.reporter import dropped_words
from stagewise.callbacks.session import examined
from stagewise.errors import LossContractError
from stagewise.loading.loader import ResumableLoader
from stagewise.probes.history import Record
from stagewise.probes.prober import Prober
from stagewise.probes.subject import examine
from stagewise.reporting.summary import build_summary, summary_markdown
from stagewise.sampling.data import ProbeData
from stagewise.sampling.target import Target
from stagewise.sampling.trace import NO_FACTORS, NOT_FINITE_HERE
from tests.callbacks.runs import SGLD, Regression, X, Y, fit, regression_data

FULL = ProbeConfig(save_trace=True, sample_matrices=SampleMatrices.all)
OBSERVED, SAMPLING = (X[:12], Y[:12]), (X[12:], Y[12:])
GROUPS = {"low": torch.arange(12) < 6, "odd": torch.arange(12) % 2 == 1}


def turns(step, rows=(3,), value=torch.nan):
    """Returns a loss that is not finite in these observed samples from a step on."""

    def loss_fn(module, batch):
        losses = Regression.per_sample_loss(module, batch)
        bad = (batch[0][:, None] == X[list(rows)]).all(dim=2).any(dim=1)
        return torch.where(bad & (module.global_step >= step), value, losses)

    return loss_fn


def callback(loss_fn, every=2, **settings):
    given = {"observed": OBSERVED, "sampling": SAMPLING, "groups": GROUPS} | settings
    return InfluenceCallback(ProbeSchedule(every_n_steps=every), SGLD, FULL, loss_fn=loss_fn, **given)


def told(body):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = body()
    return result, [str(item.message) for item in caught if str(item.message).startswith("stagewise: ")]


def seeded():
    pl.seed_everything(3, verbose=False)
    return Regression()


def summary_of(trainer):
    return json.loads(open_run(trainer.log_dir).attrs["summary"])


def assert_same(left, right, names):
    for name in names:
        if name != "seconds":
            np.testing.assert_array_equal(left[name].values, right[name].values, err_msg=str(name))


def test_a_bad_sample_is_left_out_and_training_is_unchanged(tmp_path):
    module = seeded()
    trainer, words = told(lambda: fit(tmp_path / "bad", module, regression_data(), callback(turns(0))))
    kept = [row for row in range(12) if row != 3]
    never = callback(
        turns(0),
        observed=(X[kept], Y[kept]),
        groups={name: mask[kept] for name, mask in GROUPS.items()},
    )
    other = fit(tmp_path / "never", seeded(), regression_data(), never)
    bare = seeded()
    fit(tmp_path / "bare", bare, regression_data(), callback(turns(0), enabled=False))
    assert torch.equal(module.layer.weight, bare.layer.weight)
    run, want = open_run(trainer.log_dir, trace=True), open_run(other.log_dir, trace=True)
    assert run["step"].values.tolist() == [2, 4, 6]
    assert run["sample"].values.tolist() == kept
    assert_same(run, want, want.data_vars)
    assert summary_of(trainer)["lost_samples"] == [{"sample": 3, "step": 0}]
    assert summary_of(other)["lost_samples"] == []
    assert sum("in 1 sample of the observed set: 3; left out from here on" in word for word in words) == 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs with sample 3 bad from step 3 on, without a probe there: uninterrupted, and resumed at 3 and 6."""
    folder = tmp_path_factory.mktemp("turning")

    def train(ckpt_path=None):
        pl.seed_everything(7, verbose=False)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=10,
            callbacks=[
                callback(turns(3)),
                ModelCheckpoint(folder / "checkpoints", every_n_train_steps=3, save_top_k=-1),
            ],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Regression(), ResumableLoader(regression_data(), 8, seed=3), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    whole, words = told(train)
    checkpoints = {step: next((folder / "checkpoints").glob(f"*step={step}.ckpt")) for step in (3, 6)}
    return whole, words, {step: train(path) for step, path in checkpoints.items()}


def test_a_sample_that_turns_bad_is_left_out_from_that_probe_on(runs):
    trainer, words, _ = runs
    run, summary = open_run(trainer.log_dir), summary_of(trainer)
    assert run["step"].values.tolist() == [2, 4, 6, 8, 10]
    assert np.isnan(run["shift"]).sum("step").values.tolist() == [0, 0, 0, 4] + [0] * 8
    assert np.isfinite(run["group_bif"]).all()
    assert np.isfinite(run["signal"]).values.tolist() == [False, True, True, True, True]
    assert summary["lost_samples"] == [{"sample": 3, "step": 4}]
    assert (summary["failed_steps"], summary["chains_dropped"], summary["probes_failed"]) == ([], 0, {})
    (line,) = [word for word in words if "not finite" in word]
    assert "(NaN) at step 4 in 1 sample of the observed set: 3;" in line
    assert "sgld" not in line


@pytest.mark.parametrize("step", [3, 6])
def test_a_run_resumed_before_or_after_the_loss_equals_an_uninterrupted_one(runs, step):
    whole, _, resumed = runs
    left, right = open_run(whole.log_dir, trace=True), open_run(resumed[step].log_dir, trace=True)
    assert_same(left, right, left.data_vars)
    assert left["sample"].equals(right["sample"])
    assert summary_of(resumed[step])["lost_samples"] == summary_of(whole)["lost_samples"]


def test_if_all_losses_turn_bad_the_probe_is_lost_and_the_model_is_blamed(tmp_path):
    everything = callback(turns(3, rows=range(12), value=torch.inf))
    trainer, words = told(lambda: fit(tmp_path, Regression(), regression_data(), everything))
    assert (summary_of(trainer)["failed_steps"], summary_of(trainer)["lost_samples"]) == ([4, 6], [])
    assert summary_of(trainer)["not_finite_steps"] == [4, 6]
    assert "look at the model" in summary_of(trainer)["verdict"]["best"]["words"]
    lost = [word for word in words if "the probe at step" in word and "flagged" not in word]
    assert len(lost) == 2
    assert f"{NOT_FINITE_HERE} (inf) in 12 of 12 observed samples, so no chain was run; look at the model" in lost[0]
    assert not any("sgld.lr" in item for item in lost)


def test_divergence_from_finite_losses_is_attributed_to_the_settings():
    module = Regression()
    wild = SGLDConfig(lr=3.0, nbeta=1e4, localization=1.0, num_draws=4)
    prober = Prober(module, Regression.per_sample_loss, ProbeData(OBSERVED, SAMPLING), sgld=wild, config=FULL)
    _, trace = prober.probe(module, 5)
    words = dropped_words(trace, wild.num_chains, lost=True)
    assert words.startswith("8 of 8 chains of the probe at step 5 were dropped: ")
    assert words.endswith("lower sgld.lr or raise sgld.localization")
    assert "\n" not in words
    one = replace(trace, dropped={3: "a loss is nan"})
    factors = replace(trace, dropped={0: f"{NO_FACTORS} (no convergence)"})
    assert "sgld.lr" not in dropped_words(factors, 8, lost=True)
    assert "set sgld.preconditioner to null" in dropped_words(factors, 8, lost=True)
    assert dropped_words(one, 8, lost=False).startswith("1 of 8 chains of the probe at step 5 was dropped: a loss is")
    many = replace(trace, dropped={0: "one", 1: "two", 2: "two", 3: "three"})
    assert "4 of 8 chains" in dropped_words(many, 8, lost=False)
    assert "one, two and 1 other reason;" in dropped_words(many, 8, lost=False)


def test_a_run_with_only_bad_samples_at_the_start_is_refused(tmp_path):
    with pytest.raises(LossContractError, match=r"in all 12 samples of the observed set; .*look at the model"):
        fit(tmp_path, Regression(), regression_data(), callback(turns(0, rows=range(12))))


def test_a_run_with_too_few_samples_left_continues_training(tmp_path):
    groups = {"three": torch.arange(12) == 3, "four": torch.arange(12) == 4}
    trainer, words = told(
        lambda: fit(tmp_path, Regression(), regression_data(), callback(turns(3, rows=(3, 4)), groups=groups))
    )
    assert trainer.global_step == 6
    assert summary_of(trainer)["probe_steps"] == [2]
    assert any("nothing is left to observe of groups 'three', 'four'" in word for word in words)


class SecondRank(Ranks):
    """Rank that finds other samples than rank zero, which sends these."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def decide(self, work):
        return self.answer


def test_the_samples_found_by_rank_zero_are_left_out_on_every_rank():
    module = Regression()
    module.trainer = SimpleNamespace(global_step=0)
    record = Record()

    def look(lost):
        return examine(module, Target(loss_fn, OBSERVED, SAMPLING), {}, SGLD, FULL, lost=lost, warn=lambda words: None)

    loss_fn, ranks = turns(0), SecondRank((5,))
    subject = examined(ranks, record, look, 0, resumed=False)
    assert subject.lost == (5,)
    assert record.lost_samples == [{"sample": 5, "step": 0}]
    assert examined(ranks, record, look, 4, resumed=True).lost == (5,)


def test_lost_samples_are_in_the_summary_text_and_restored_from_a_checkpoint():
    record = Record()
    record.add_lost(range(25), 4)
    summary = build_summary(Record.from_state_dict(record.state_dict()), config=replace(SGLD), probe=FULL)
    assert summary["lost_samples"] == [{"sample": sample, "step": 4} for sample in range(25)]
    text = summary_markdown(summary)
    assert "observed samples 0 (step 4), 1 (step 4), " in text
    assert "19 (step 4) and 5 more." in text
    json.dumps(summary, allow_nan=False)
