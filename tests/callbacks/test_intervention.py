"""Effects of the intervention callback on a run, and its records."""

import json
import logging

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stagewise import ConstantFactor, FromRun, InputError, InterventionCallback, ProportionalToInfluence
from stagewise.interventions.influence_table import InfluenceTable
from stagewise.interventions.span import Span
from tests.callbacks.interventions import EVEN, FOUR, Witness, intervention, loader, train

SPANS = "{class_path: stagewise.Spans, init_args: {spans: [{start: 3, end: 9}]}}"
pytestmark = pytest.mark.filterwarnings("ignore")


class Driver(pl.Callback):
    """Callback that opens and closes windows at given steps, from the hook after the update."""

    def __init__(self, target, opens, closes):
        self.target, self.opens, self.closes = target, opens, closes

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = trainer.global_step
        if step == self.opens:
            self.target.open(step, "the signal rose")
        elif step == self.closes:
            self.target.close(step, "the signal fell")


def report(trainer):
    return json.loads(open(f"{trainer.log_dir}/intervention.json").read())


@pytest.mark.parametrize("mechanism", ["sampling", "loss"])
def test_with_weights_of_1_the_run_equals_the_run_without_bit_for_bit(tmp_path, mechanism):
    _, plain = train(tmp_path, [])
    placebo = intervention(mechanism, policy=ConstantFactor({"even": 1.0}))
    _, found = train(tmp_path, [placebo])
    assert found.batches == plain.batches
    assert found.weights == plain.weights
    assert placebo.plan.inside_at(5)


def test_sampling_changes_only_the_batches_in_the_window(tmp_path):
    _, plain = train(tmp_path, [])
    trainer, found = train(tmp_path, [intervention(windows=((3, 9),))])
    differ = [step for (step, new), (_, old) in zip(found.batches, plain.batches, strict=True) if new != old]
    assert set(range(3, 9)) >= set(differ)
    assert len(differ) >= 5
    share = [sum(bool(EVEN[item]) for item in batch) for step, batch in found.batches if 3 <= step < 9]
    assert sum(share) / 48 > 0.4  # 4 / 7 of the draws are asked for, a quarter without
    assert report(trainer)["drawn"]["changes"] == [
        {"batch": 3, "weights": {"even": 4.0}},
        {"batch": 9, "weights": {"even": 1.0}},
    ]


def test_loss_weights_equal_those_of_a_plain_loop(tmp_path):
    _, found = train(tmp_path, [intervention("loss")], max_steps=12)
    x, y, _, even = loader().dataset.tensors
    pl.seed_everything(1, verbose=False)
    layer = torch.nn.Linear(3, 1)
    for (step, batch), expected in zip(found.batches, found.weights, strict=True):
        losses = (layer(x[batch]) - y[batch]).square().mean(dim=1)
        rho = torch.where(even[batch], 4.0, 1.0) if 3 <= step < 9 else torch.ones(len(batch))
        gradients = torch.autograd.grad((rho * losses).sum() / rho.sum(), list(layer.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
                parameter -= 0.05 * gradient
        now = torch.cat([weight.detach().flatten() for weight in layer.parameters()])
        torch.testing.assert_close(now, torch.tensor(expected))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_fixed_windows_act_at_their_steps_despite_accumulation_short_epochs_and_workers(tmp_path, num_workers):
    settings = {"accumulate_grad_batches": 3, "limit_train_batches": 7}
    data = {"num_workers": num_workers} | ({"prefetch_factor": 3} if num_workers else {})
    _, plain = train(tmp_path, [], loader(), max_steps=12, **settings)
    _, found = train(tmp_path, [intervention(windows=((4, 8),))], loader(**data), max_steps=12, **settings)
    differ = {step for (step, new), (_, old) in zip(found.batches, plain.batches, strict=True) if new != old}
    assert differ == {4, 5, 6, 7}


@pytest.mark.parametrize(("num_workers", "lag"), [(0, 0), (1, 2)])
def test_a_live_window_acts_at_its_step_or_later_by_the_reported_lag(tmp_path, caplog, num_workers, lag):
    callback = intervention(windows=None, policy=ConstantFactor({"even": 0.0}))
    with caplog.at_level(logging.INFO):
        trainer, found = train(tmp_path, [callback, Driver(callback, 4, 9)], loader(num_workers=num_workers))
    without = [step for step, batch in found.batches if not any(bool(EVEN[item]) for item in batch)]
    assert without == list(range(4 + lag, 9 + lag))
    assert [(change.step, change.reason) for change in callback.plan.changes] == [
        (4, "the signal rose"),
        (9, "the signal fell"),
    ]
    assert ("2 batches later" in caplog.text) == bool(lag)
    assert "stagewise: step 4: the signal rose; sampling weights even 0" in caplog.text
    assert report(trainer)["prefetch_lag"] == lag
    assert [item["batch"] for item in report(trainer)["drawn"]["changes"]] == [4 + lag, 9 + lag]


def test_changes_are_in_tensorboard_and_in_the_file(tmp_path):
    trainer, _ = train(tmp_path, [intervention(windows=((3, 5), Span(8, 9)))])
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    active = [(scalar.step, scalar.value) for scalar in events.Scalars("intervention/active")]
    assert active == [(0, 0), (2, 0), (3, 1), (4, 1), (5, 0), (7, 0), (8, 1), (9, 0), (14, 0)]
    weights = [(scalar.step, scalar.value) for scalar in events.Scalars("intervention/weight/even")]
    assert weights == [(step, 1.0 + 3.0 * value) for step, value in active]
    (text,) = events.Tensors("intervention/changes/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    assert "| 3 | open | 4 | window 0 [3, 5) opens |" in table
    assert "3 steps reweighted" in table
    found = report(trainer)
    assert [change["step"] for change in found["changes"]] == [3, 5, 8, 9]
    # 3 steps of a group with share 1/4 at weight 4: rho = 4 / (1 + 3/4).
    assert found["budget"]["groups"]["even"] == pytest.approx(3 * (4 / 1.75 - 1))
    assert found["drawn"]["budget"] == found["budget"]


def test_after_an_exception_the_file_has_the_changes_made(tmp_path):
    class Fails(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 5:
                raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train(tmp_path, [intervention(), Fails()])
    (file,) = tmp_path.rglob("intervention.json")
    found = json.loads(file.read_text())
    assert found["steps"] == 5
    assert [change["step"] for change in found["changes"]] == [3]
    assert found["budget"]["steps"] == 2


def test_windows_come_from_an_earlier_run_and_the_policy_from_a_dotted_path(tmp_path):
    window = {"start": 2, "peak": 6, "end": 9, "signal": "x"}
    (tmp_path / "summary.json").write_text(json.dumps({"transitions": [window]}))
    callback = intervention(
        windows=FromRun(tmp_path, part="fixed", length=3, shift=-1), policy="tests.callbacks.interventions.FOUR"
    )
    assert callback.spans == (Span(1, 4),)
    train(tmp_path, [callback])
    assert callback.plan.weights_at(2) == {"even": 4.0}
    assert callback.policy is FOUR


def test_a_second_run_with_the_same_callback_starts_afresh(tmp_path):
    callback = intervention(windows=None)
    _, first = train(tmp_path, [callback, Driver(callback, 4, 9)])
    _, second = train(tmp_path, [callback, Driver(callback, 4, 9)])
    assert first.weights == second.weights
    assert callback.plan.windows == 1


def test_live_changes_outside_of_a_live_run_are_refused(tmp_path):
    with pytest.raises(InputError, match="before training starts"):
        intervention(windows=None).open(3, "too early")
    fixed = intervention()
    train(tmp_path, [fixed, Witness()])
    with pytest.raises(InputError, match="among fixed ones"):
        fixed.close(20, "by hand")


@pytest.mark.parametrize(
    ("arguments", "spans", "policy"),
    [
        (
            [
                "--it.windows=stagewise.Spans",
                "--it.windows.spans=[[3,9]]",
                "--it.policy=stagewise.ConstantFactor",
                "--it.policy.weights={even: 4}",
            ],
            (3, 9),
            FOUR,
        ),
        (
            [f"--it.windows={SPANS}", "--it.policy=tests.callbacks.interventions.FOUR"],
            (3, 9),
            FOUR,
        ),
        (["--it.policy=tests.callbacks.interventions.FOUR", "--it.mechanism=loss", "--it.groups=[even]"], None, FOUR),
    ],
)
def test_the_callback_can_be_configured_on_the_command_line(arguments, spans, policy):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(InterventionCallback, "it")
    callback = parser.instantiate_classes(parser.parse_args(arguments)).it
    assert callback.spans == (None if spans is None else (Span(*spans),))
    assert callback.policy == policy


def test_a_policy_by_influence_uses_the_given_table(tmp_path):
    table = InfluenceTable(names=("even",), values=np.array([[-2.0]]), step=2)
    policy = ProportionalToInfluence("even", 2.0)
    fixed = intervention(policy=policy, influence=[table])
    train(tmp_path, [fixed])
    assert fixed.plan.weights_at(3) == {"even": 3.0}

    class Probes(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 4:
                lived.open(4, "inflection", influence=table)
            if trainer.global_step == 6:
                lived.update(6, influence=InfluenceTable(names=("even",), values=np.array([[2.0]]), step=6))

    lived = intervention(windows=None, policy=policy)
    train(tmp_path, [lived, Probes()])
    assert [(change.step, change.weights["even"], change.inside) for change in lived.plan.changes] == [
        (4, 3.0, True),
        (6, 0.25, True),
    ]
