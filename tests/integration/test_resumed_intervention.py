"""A run that is stopped inside an open window and resumed equals the run that never stopped, bit for bit."""

from itertools import product

import lightning.pytorch as pl
import pytest
import torch

from stagewise import ConstantFactor, InputError
from tests.callbacks.interventions import EVEN, intervention, loader, train
from tests.callbacks.test_intervention import Driver

pytestmark = pytest.mark.filterwarnings("ignore")


class Stop(pl.Callback):
    """Ends a run as a kill would, after its checkpoint."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= self.step


def live(mechanism, opens=3, closes=11):
    callback = intervention(mechanism, windows=None)
    return [callback, Driver(callback, opens, closes)]


def fixed(mechanism):
    return [intervention(mechanism, windows=((3, 11), (12, 13)))]


PLAIN, PARTS = {}, {"accumulate_grad_batches": 2, "limit_train_batches": 7}


def resumed():
    """Every combination; of those that start processes for the data, two are quick."""
    for settings, mechanism, kind in product((PLAIN, PARTS), ("sampling", "loss"), (fixed, live)):
        quick = (settings, mechanism, kind) in ((PARTS, "sampling", fixed), (PLAIN, "loss", live))
        yield settings, mechanism, kind, 0
        yield pytest.param(settings, mechanism, kind, 1, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("settings", "mechanism", "kind", "num_workers"), [*resumed()])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, mechanism, kind, num_workers, settings):
    def data():
        return loader(num_workers=num_workers)

    _, whole = train(tmp_path / "whole", kind(mechanism), data(), max_steps=18, **settings)
    parts = [*kind(mechanism), Stop(7)]
    _, before = train(tmp_path / "parts", parts, data(), max_steps=18, every=7, **settings)
    (checkpoint,) = (tmp_path / "parts" / "ckpt").glob("*step=7.ckpt")
    assert parts[0].plan.inside_at(7)
    assert before.batches[-1][0] == 6
    _, after = train(tmp_path / "rest", kind(mechanism), data(), max_steps=18, ckpt_path=checkpoint, **settings)
    assert before.batches + after.batches == whole.batches
    assert before.weights + after.weights == whole.weights
    _, plain = train(tmp_path / "plain", [], data(), max_steps=18, **settings)
    changed = whole.batches != plain.batches if mechanism == "sampling" else whole.weights != plain.weights
    assert changed


def test_weights_differ_from_a_run_whose_window_closes_at_the_checkpoint(tmp_path):
    """The comparison above can fail."""
    _, whole = train(tmp_path, fixed("sampling"))
    _, short = train(tmp_path, [intervention(windows=((3, 7),))])
    assert whole.weights[:7] == short.weights[:7]
    assert whole.weights[-1] != short.weights[-1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    train(folder, [intervention(windows=((3, 9),)), Stop(7)], every=7)
    (found,) = (folder / "ckpt").glob("*step=7.ckpt")
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"windows": ((3, 10),)}, r"change weights at steps \[3, 9\], and a plan with others \(\[3, 10\]\)"),
        ({"policy": ConstantFactor({"even": 5.0})}, r"got policy ConstantFactor\(weights={'even': 5.0}\) and a check"),
        ({"windows": None}, "got a checkpoint with fixed windows and a plan with live windows"),
        ({"mechanism": "loss"}, "got mechanism loss and a checkpoint with sampling"),
    ],
)
def test_resuming_with_other_windows_or_another_policy_is_refused(tmp_path, checkpoint, arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        train(tmp_path, [intervention(**{"windows": ((3, 9),), **arguments})], ckpt_path=checkpoint)
    assert "\n" not in str(caught.value)


def test_windows_in_the_past_of_a_checkpoint_without_them_are_refused_and_later_ones_accepted(tmp_path):
    train(tmp_path, [], max_steps=7, every=7)
    (plain,) = (tmp_path / "ckpt").glob("*step=7.ckpt")
    with pytest.raises(InputError, match="window from step 3 on in a run resumed at step 7"):
        train(tmp_path, [intervention(windows=((3, 9),))], ckpt_path=plain)
    _, witness = train(tmp_path, [intervention(windows=((8, 14),))], ckpt_path=plain)
    share = [sum(bool(EVEN[item]) for item in batch) / 8 for step, batch in witness.batches if step >= 8]
    assert sum(share) / len(share) > 0.4


def test_a_checkpoint_of_another_loader_is_refused(tmp_path):
    data = torch.utils.data.DataLoader(loader().dataset, 8)
    train(tmp_path, [], data, max_steps=7, every=7)
    (plain,) = (tmp_path / "ckpt").glob("*step=7.ckpt")
    with pytest.raises(InputError, match="yielded 0 batches in a run at step 7; expected 7"):
        train(tmp_path, [intervention(windows=((8, 14),))], ckpt_path=plain)


def test_the_state_is_plain_python(checkpoint):
    state = torch.load(checkpoint, weights_only=True)["callbacks"]["InterventionCallback"]
    assert state["plan"]["windows"] == 1
