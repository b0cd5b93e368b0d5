"""Refusals of the intervention callback before the first step of training, in one line each."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from stagewise import (
    ConstantFactor,
    DetectorConfig,
    InputError,
    InterventionCallback,
    ProportionalToInfluence,
    ReweightedLoader,
)
from stagewise.interventions.span import Span
from tests.callbacks.interventions import EVEN, FOUR, Numbered, Weighing, Witness, intervention, loader, train
from tests.callbacks.runs import Regression

pytestmark = pytest.mark.filterwarnings("ignore")


def negative(names, *, window, step, influence):
    return {"even": -1.0}


def nothing(names, *, window, step, influence):
    return {"even": 0.0, "odd": 0.0}


BOTH = {"even": EVEN, "odd": ~EVEN}


def halves():
    return ReweightedLoader(Numbered(), BOTH, 8)


def used():
    data = loader()
    next(iter(data))
    return data


@pytest.mark.parametrize(
    ("arguments", "data", "settings", "words"),
    [
        ({"windows": ((3, 9), Span(8, 10))}, loader, {}, "overlap"),
        ({"windows": ((3, 15),)}, loader, {}, "for a run of 14 steps"),
        ({"policy": ConstantFactor({"evn": 2.0})}, loader, {}, "got group 'evn'; expected one of 'even'"),
        ({"policy": ConstantFactor({"evn": 2.0}), "windows": None}, loader, {}, "got group 'evn'"),
        ({"policy": negative}, loader, {}, "got weight -1.0 for group 'even'"),
        ({"policy": nothing}, halves, {}, "whose sum over the samples is 0"),
        ({"policy": ConstantFactor({"even": 0.0, "odd": 0.0}), "windows": None}, halves, {}, "is 0; expected"),
        (
            {"policy": nothing, "mechanism": "loss", "groups": {"even": EVEN, "odd": ~EVEN}},
            loader,
            {},
            "is 0; expected",
        ),
        ({"policy": negative, "mechanism": "loss"}, loader, {}, "got weight -1.0"),
        ({"policy": negative, "mechanism": "loss"}, lambda: DataLoader(Numbered(), 8), {}, "pass groups"),
        ({"policy": ProportionalToInfluence("even")}, loader, {}, "got no influence when window 0 opened"),
        ({}, lambda: DataLoader(Numbered(), 8, shuffle=True), {}, r"ReweightedLoader\(dataset, {'name': mask"),
        ({}, lambda: loader(weights_for=lambda number: {}), {}, "weights_for set"),
        ({}, used, {}, "yielded 1 batches in a run at step 0; expected 0"),
        ({"policy": ConstantFactor({"even": 100.0}), "windows": ((0, 14),)}, loader, {}, "80 samples in 'even', of wh"),
        ({}, loader, {"reload_dataloaders_every_n_epochs": 1}, "reload_dataloaders_every_n_epochs=1"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_the_first_step(tmp_path, arguments, data, settings, words):
    witness = Witness()
    with pytest.raises(InputError, match=words) as caught:
        train(tmp_path, [intervention(**arguments), witness], data(), **settings)
    assert "\n" not in str(caught.value)
    assert not witness.batches
    assert not list(tmp_path.rglob("intervention.json"))


def test_a_supply_that_just_suffices_is_accepted(tmp_path):
    train(tmp_path, [intervention(policy=ConstantFactor({"even": 100.0}), windows=((0, 7),))])


def test_repeating_samples_can_be_requested(tmp_path):
    data = loader(when_exhausted="repeat")
    train(tmp_path, [intervention(policy=ConstantFactor({"even": 100.0}), windows=((0, 14),))], data)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mechanism": "magic"}, "expected one of .*sampling.*loss"),
        ({"policy": "stagewise.nothing"}, "cannot be imported"),
        ({"policy": ConstantFactor}, "expected one such as ConstantFactor"),
        ({"policy": None}, "got policy None; expected one such as ConstantFactor"),
        ({"groups": ["even"]}, "the ReweightedLoader has them"),
    ],
)
def test_unusable_arguments_are_refused_at_once(arguments, words):
    with pytest.raises(InputError, match=words):
        intervention(**arguments)


YAML = r"in YAML windows: {class_path: stagewise\."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"windows": [(300, 400)]}, rf"write InterventionCallback\(policy, Spans\(\[\(300, 400\)\]\)\), {YAML}Spans"),
        ({"windows": "runs/a"}, rf"write InterventionCallback\(policy, FromRun\('runs/a'\)\), {YAML}FromRun"),
        ({"windows": Path("runs/a")}, r"write InterventionCallback\(policy, FromRun\('runs/a'\)\)"),
        ({"windows": FOUR}, r"got windows=ConstantFactor.*expected Spans\(spans\), FromRun\(path\)"),
        (
            {"detector": DetectorConfig(), "signal": "between"},
            rf"got detector, signal for .*windows=Live\(.*{YAML}Live",
        ),
        ({"max_windows": 1}, r"got max_windows for .*expected windows=Live\("),
        (
            {"windows": "runs/a", "part": "onset", "shift": 0},
            rf"got part, shift for .*windows=FromRun\(.*{YAML}FromRun",
        ),
        ({"influence": [None]}, r"expected windows=Spans\(\[\(300, 400\)\], influence=\[...\]\)"),
    ],
)
def test_arguments_of_earlier_versions_are_refused_with_their_replacement(arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        InterventionCallback(FOUR, **arguments)
    assert "\n" not in str(caught.value)


def test_the_earlier_order_of_arguments_is_refused_with_the_new_one():
    for first in ([(300, 400)], Path("runs/a")):
        with pytest.raises(InputError, match=r"write InterventionCallback\(policy, "):
            InterventionCallback(first, FOUR)
    with pytest.raises(InputError, match=r"got windows=ConstantFactor.*write InterventionCallback\(policy, "):
        InterventionCallback("runs/a", FOUR)
    with pytest.raises(TypeError, match=r"InterventionCallback.*unexpected keyword argument 'polcy'"):
        InterventionCallback(polcy=FOUR)


def test_a_module_that_never_weighs_its_losses_is_refused_before_its_first_update(tmp_path):
    class Deaf(Regression):
        pass

    witness = Witness()
    with pytest.raises(InputError, match="Deaf, whose training_step ignores loss weights"):
        train(tmp_path, [intervention("loss"), witness], module=Deaf)
    assert not witness.weights


def test_a_module_without_a_mask_for_a_group_is_refused_before_its_first_update(tmp_path):
    witness = Witness()
    policy = ConstantFactor({"odd": 2.0})
    with pytest.raises(InputError, match="weight for group 'odd' and masks for 'even'"):
        train(tmp_path, [intervention("loss", policy=policy), witness], DataLoader(Numbered(), 8))
    assert not witness.weights


def test_manual_optimization_is_refused_for_sampling(tmp_path):
    class Manual(Weighing):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    with pytest.raises(InputError, match="manual optimization"):
        train(tmp_path, [intervention()], module=Manual)


def test_a_distributed_sampler_is_refused_before_the_data_are_set_up():
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    trainer.strategy.set_world_ranks()
    assert trainer.world_size == 2
    with pytest.raises(InputError, match=r"got use_distributed_sampler=True with 2 processes; expected False"):
        intervention().setup(trainer, Weighing(), "fit")
    intervention("loss").setup(trainer, Weighing(), "fit")


def test_windows_beyond_a_fast_dev_run_are_accepted(tmp_path):
    _, witness = train(tmp_path, [intervention(policy=FOUR)], fast_dev_run=True)
    assert len(witness.weights) == 1
    assert torch.tensor(witness.weights).isfinite().all()
