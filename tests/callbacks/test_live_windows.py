"""Windows that a detector opens and closes during a run: times, weights, and resuming."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from stagewise import (
    ConstantFactor,
    DetectorConfig,
    InfluenceCallback,
    InputError,
    Live,
    ProbeSchedule,
    ProportionalToInfluence,
    open_run,
)
from tests.callbacks.interventions import EVEN, Numbered, Witness, intervention, loader, train
from tests.callbacks.runs import SGLD
from tests.integration.test_resumed_intervention import Stop

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = DetectorConfig(min_plateau=3, num_probes=1, min_z=0.05, max_length=5)
NONE = ConstantFactor({"even": 0.0})


def probes(steps=(0, 1, 2, 3, 4, 6, 8, 13), **settings):
    observed = tuple(tensor[:16] for tensor in Numbered().tensors)
    sampling = tuple(tensor[:64] for tensor in Numbered().tensors)
    schedule = ProbeSchedule(at_steps=list(steps))
    groups = {"even": EVEN[:16], "odd": ~EVEN[:16]}
    return InfluenceCallback(schedule, SGLD, observed=observed, sampling=sampling, groups=groups, **settings)


def live(mechanism="sampling", policy=NONE, **settings):
    windows = Live(**{"detector": SMALL, "signal": "group_loss/even", "max_windows": 1} | settings)
    return intervention(mechanism, windows=windows, policy=policy)


def steps_of(callback):
    return [(change.step, change.inside) for change in callback.plan.changes]


@pytest.mark.parametrize("first", ["influence", "intervention"])
def test_a_window_opens_at_its_probe_and_closes_after_max_length_between_probes(tmp_path, first):
    callback, watch = live(), probes()
    callbacks = [watch, callback] if first == "influence" else [callback, watch]
    _, found = train(tmp_path, callbacks)
    # The loss falls from the start: the fourth probe (step 3) departs from a plateau of three.
    assert steps_of(callback) == [(3, True), (8, False)]
    without = [step for step, batch in found.batches if not any(bool(EVEN[item]) for item in batch)]
    assert set(range(3, 8)) <= set(without)
    assert [step for step in without if not 3 <= step < 8] == [
        step
        for step, batch in train(tmp_path / "plain", [])[1].batches
        if not any(bool(EVEN[item]) for item in batch) and not 3 <= step < 8
    ]


def test_a_window_ends_after_max_length_without_a_probe(tmp_path):
    callback = live(detector=DetectorConfig(min_plateau=3, num_probes=1, min_z=0.05, max_length=4))
    _, found = train(tmp_path, [callback, probes((0, 1, 2, 3, 14))])
    assert steps_of(callback) == [(3, True), (7, False)]
    assert all(not EVEN[item] for step, batch in found.batches if 3 <= step < 7 for item in batch)
    assert any(EVEN[item] for step, batch in found.batches if step == 7 for item in batch)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Whole runs by mechanism."""

    @cache
    def run(mechanism):
        return train(tmp_path_factory.mktemp(mechanism), parts(mechanism))

    return run


def parts(mechanism):
    return [live(mechanism, policy=ConstantFactor({"even": 4.0})), probes()]


# Before the window, where it opens, inside, where it closes, after it.
@pytest.mark.parametrize(
    ("mechanism", "stop"),
    [
        *(("sampling", stop) for stop in (2, 3, 5, 8)),
        ("loss", 3),
        pytest.param("sampling", 10, marks=pytest.mark.slow),
        *(pytest.param("loss", stop, marks=pytest.mark.slow) for stop in (2, 5, 8, 10)),
    ],
)
def test_a_run_resumed_anywhere_equals_the_uninterrupted_one(uninterrupted, tmp_path, mechanism, stop):
    whole_trainer, whole = uninterrupted(mechanism)
    _, before = train(tmp_path / "parts", [*parts(mechanism), Stop(stop)], every=stop)
    (checkpoint,) = (tmp_path / "parts" / "ckpt").glob(f"*step={stop}.ckpt")
    rest_trainer, after = train(tmp_path / "rest", parts(mechanism), ckpt_path=checkpoint)
    assert before.batches + after.batches == whole.batches
    assert before.weights + after.weights == whole.weights
    reports = [
        json.loads(Path(item.log_dir, "intervention.json").read_text()) for item in (whole_trainer, rest_trainer)
    ]
    assert reports[0] == reports[1]
    assert [report["step"] for report in reports[0]["changes"]] == [3, 8]


def test_the_policy_reads_the_influence_of_each_probe_in_the_window(tmp_path):
    heard = []

    def policy(names, *, window, step, influence):
        heard.append((step, influence))
        return {"even": 1.0 + step}

    callback, watch = live(policy=policy), probes()
    train(tmp_path, [callback, watch])
    assert [step for step, _ in heard] == [3, 4, 6]
    assert [(change.step, change.weights["even"]) for change in callback.plan.changes] == [
        (3, 4.0),
        (4, 5.0),
        (6, 7.0),
        (8, 1.0),
    ]
    run = open_run(watch.folder)
    for step, table in heard:
        stored = run["group_bif"].sel(step=step, part="total").values
        assert table.step == step
        assert (table.values == stored).all()


def test_without_a_window_the_run_equals_the_run_without_intervention_bit_for_bit(tmp_path):
    _, plain = train(tmp_path / "plain", [])
    callback = live(detector=DetectorConfig(max_length=5))
    _, found = train(tmp_path / "found", [callback, probes()])
    assert callback.plan.changes == []
    assert found.weights == plain.weights


def test_listeners_receive_every_probe_including_step_0(tmp_path):
    heard = []
    watch = probes((0, 2))
    watch.subscribe(lambda step, probe: heard.append((step, probe is None)))
    train(tmp_path, [watch], max_steps=3)
    assert heard == [(0, False), (2, False)]


@pytest.mark.parametrize(
    ("arguments", "watch", "words"),
    [
        ({}, None, "got a detector and 0 InfluenceCallbacks"),
        ({}, lambda: probes(enabled=False), r"InfluenceCallback\(enabled=False\) in the trainer"),
        ({"signal": "within/cats~cats"}, probes, "got signal 'within/cats~cats'; expected one of"),
        ({"policy": ProportionalToInfluence("even")}, probes, "got group 'odd'"),
    ],
)
def test_unusable_live_settings_are_refused_in_one_line_before_the_first_step(tmp_path, arguments, watch, words):
    witness = Witness()
    with pytest.raises(InputError, match=words) as caught:
        train(tmp_path, [live(**arguments), *([] if watch is None else [watch()]), witness])
    assert "\n" not in str(caught.value)
    assert not witness.weights


def test_resuming_with_another_detector_is_refused(tmp_path):
    train(tmp_path, [live(), probes(), Stop(5)], every=5)
    (checkpoint,) = (tmp_path / "ckpt").glob("*step=5.ckpt")
    with pytest.raises(InputError, match=r"got detector .* and a checkpoint with"):
        train(tmp_path / "rest", [live(max_windows=2), probes()], loader(), ckpt_path=checkpoint)
    assert torch.load(checkpoint, weights_only=True)["callbacks"]["InterventionCallback"]["live"]["detector"]["window"]


def test_a_live_window_that_runs_out_of_samples_continues_with_the_others(tmp_path):
    """80 of 320 samples are even; with weight 1000 a window of 35 batches of 8 needs more than all of them."""
    long = DetectorConfig(min_plateau=3, num_probes=1, min_z=0.05, max_length=35)
    callback = live(policy=ConstantFactor({"even": 1000.0}), detector=long)
    with pytest.warns(UserWarning, match="too few samples for the weights of a window"):
        _, found = train(tmp_path, [callback, probes()], loader(), max_steps=40)
    seen = [item for _, batch in found.batches for item in batch]
    assert sorted(seen) == list(range(320))  # each once, in an epoch of 40 batches
    inside = [bool(EVEN[item]) for step, batch in found.batches if 4 <= step < 10 for item in batch]
    assert sum(inside) / len(inside) > 0.9
