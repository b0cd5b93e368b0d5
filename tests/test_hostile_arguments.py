"""Every field of every public settings class, and every argument of every public call, against bad values."""

import math
import time
from dataclasses import MISSING, fields, is_dataclass

import numpy as np
import pytest
import torch

import stagewise
from stagewise.callbacks.calibration import CalibrationSettings
from stagewise.errors import InputError
from stagewise.influence.token_bif_sums import TokenSums
from stagewise.influence.uncertainty import t_interval
from stagewise.lm.classes.spec import ClassSpec
from stagewise.losses.collated import CollatedLoss
from stagewise.phases.flips import SignFlip, find_flips
from stagewise.phases.matching import match_windows
from stagewise.phases.offline import find_windows
from stagewise.phases.two_phase import two_phase
from stagewise.phases.window import Window
from stagewise.sampling.share import ChainShare
from stagewise.studies.intervention import config as intervention
from stagewise.studies.toy import config as toy
from stagewise.sweep import config as sweep
from stagewise.toy.hierarchy import Hierarchy


class Rude:
    """Raises wherever it is looked at."""

    def __repr__(self):
        raise RuntimeError("no words")


BAD = {
    "None": None,
    "text": "four",
    "number as text": "4",
    "YAML's word for 1e-4": "1e-4",
    "empty text": "",
    "a null character": "a\0b",
    "escape sequences": "\x1b[2J\u202e<script>",
    "True": True,
    "a fraction": 2.5,
    "a whole float": 3.0,
    "minus one": -1,
    "zero": 0,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "1e300": 1e300,
    "2^62": 2**62,
    "more bits than an index has": 10**30,
    "more digits than Python prints": 10**5000,
    "numpy's 3": np.int64(3),
    "numpy's .5": np.float32(0.5),
    "numpy's True": np.bool_(True),
    "numpy's NaN": np.float64("nan"),
    "bytes": b"4",
    "complex": 1j,
    "an empty list": [],
    "a list of text": ["a", "a"],
    "a list of fractions": [1.5, 2.5],
    "a list of a truth value": [True],
    "a list with None": [1, None],
    "a list of lists": [[1], [2, 3]],
    "an endless range": range(10**15),
    "a mapping": {"a": 1},
    "a mapping to NaN": {"a": math.nan},
    "an array": np.arange(3.0),
    "a tensor": torch.tensor([1.0, 2.0]),
    "an object": object(),
    "a rude object": Rude(),
    "a class": int,
    "a function": len,
}

VALID = {
    stagewise.LogSpaced: {"first": 1, "last": 100, "num": 5},
    stagewise.Span: {"start": 1, "end": 5},
    Window: {"start": 1, "peak": 2, "end": 3, "value": 1.0, "height": 0.5},
    stagewise.Spans: {"spans": [(1, 5)]},
    stagewise.FromRun: {"path": "a"},
    stagewise.Live: {"detector": stagewise.DetectorConfig(), "signal": "between"},
    SignFlip: {
        "step": 2.0,
        "earliest": 1,
        "latest": 3,
        "before": -1.0,
        "after": 1.0,
        "z_before": -3.0,
        "z_after": 3.0,
    },
    stagewise.ConstantFactor: {"weights": {"a": 2.0}},
    stagewise.ProportionalToInfluence: {"target": "a"},
    CollatedLoss: {"dataset": [1, 2]},
    stagewise.ProbeData: {"observed": (torch.zeros(4, 2), torch.zeros(4))},
    sweep.SweepConfig: {"checkpoints": "a", "corpus": "b"},
    intervention.InterventionConfig: {"model": {"class_path": "a"}, "data": {"class_path": "b"}},
    ClassSpec: {"pattern": "x"},
}
CLASSES = [
    *(it for name in stagewise.__all__ if isinstance(it := getattr(stagewise, name), type) and is_dataclass(it)),
    CalibrationSettings,
    ChainShare,
    ClassSpec,
    Hierarchy,
    SignFlip,
    Window,
    toy.NetworkSettings,
    toy.InfluenceSettings,
    toy.RetrainingSettings,
    toy.ToyConfig,
    intervention.TrainingSettings,
    intervention.InfluenceSettings,
    intervention.OnsetSettings,
    intervention.WeightSettings,
    intervention.LiveSettings,
    intervention.InterventionConfig,
    sweep.TextSettings,
    sweep.CircuitSettings,
    sweep.SweepConfig,
]
ANYTHING = {(stagewise.ProbeData, "observed"), (stagewise.ProbeData, "sampling")}
"""A batch is whatever the module takes; only that nothing else than an InputError comes is asked of it."""


def refusal(call):
    """One line for what is refused, None for what is accepted; any other exception, or a long wait, fails the test."""
    start = time.perf_counter()
    try:
        call()
    except InputError as error:
        words = str(error)
    else:
        words = None
    assert time.perf_counter() - start < 5
    if words is not None:
        assert words.startswith("got ")
        assert "\n" not in words
        assert len(words) < 1500
    return words


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__.split('.')[1]}.{kind.__name__}")
def test_no_field_takes_a_bad_value_or_fails_in_other_words(kind):
    given = VALID.get(kind, {})
    kind(**given)
    for field in fields(kind):
        for name, value in BAD.items():
            words = refusal(lambda field=field, value=value: kind(**{**given, field.name: value}))
            if words is not None:
                assert "expected" in words or (kind, field.name) in ANYTHING, (field.name, name, words)


NEVER = ("NaN", "numpy's NaN", "more digits than Python prints", "complex", "an object", "a rude object", "bytes")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__.split('.')[1]}.{kind.__name__}")
def test_what_can_never_be_a_setting_is_refused_by_every_field(kind):
    given = VALID.get(kind, {})
    free = {"observed", "sampling", "dataset"}
    for field in fields(kind):
        if field.name not in free:
            for name in NEVER:
                value = BAD[name]
                words = refusal(lambda field=field, value=value: kind(**{**given, field.name: value}))
                assert words is not None, (field.name, name)


def whole_number_fields():
    return [
        (kind, field.name)
        for kind in CLASSES
        for field in fields(kind)
        if isinstance(field.default, int) and not isinstance(field.default, bool) and "int" in str(field.type)
    ]


@pytest.mark.parametrize(("kind", "name"), whole_number_fields(), ids=lambda item: getattr(item, "__name__", item))
def test_a_count_is_a_whole_number_and_numpy_s_becomes_python_s(kind, name):
    given = VALID.get(kind, {})
    for bad in (True, 2.5, float(2), "2", math.nan, np.bool_(True), np.float64(2)):
        with pytest.raises(InputError, match=rf"{name}=.*expected a whole number"):
            kind(**{**given, name: bad})
    default = next(field.default for field in fields(kind) if field.name == name)
    assert default is not MISSING
    found = getattr(kind(**{**given, name: np.int64(default)}), name)
    assert type(found) is int
    assert found == default


def test_a_billion_log_spaced_steps_are_refused_and_take_no_memory():
    for num in (10**9, 1e9, 10**30):
        with pytest.raises(InputError, match="num"):
            stagewise.LogSpaced(1, 10**10, num)
    assert len(stagewise.LogSpaced(1, 10**10, 1000).steps()) < 1001


def test_lists_are_copied_so_that_later_changes_do_not_reach_the_settings():
    steps = [1, 2, 3]
    schedule = stagewise.ProbeSchedule(at_steps=steps)
    steps.append(-5)
    assert schedule.at_steps == [1, 2, 3]
    assert stagewise.ProbeSchedule(at_steps=np.array([1, 2])).at_steps == [1, 2]
    assert stagewise.ProbeSchedule(at_steps=range(3)).at_steps == [0, 1, 2]


CALLS = {
    "find_windows": (find_windows, {"steps": [1, 2, 3], "values": [0.0, 1.0, 0.0], "errors": None}),
    "find_windows prominence": (
        lambda min_prominence: find_windows([1, 2, 3], [0.0, 1.0, 0.0], min_prominence=min_prominence),
        {"min_prominence": 0.2},
    ),
    "find_flips": (find_flips, {"steps": [1, 2], "values": [1.0, -1.0], "errors": [0.1, 0.1]}),
    "t_interval": (
        lambda value, error, num_chains, level: t_interval(value, error, num_chains, level=level),
        {"value": [1.0], "error": [1.0], "num_chains": 4, "level": 0.9},
    ),
    "match_windows": (
        lambda windows, truth, tolerance: match_windows(windows, truth, tolerance=tolerance),
        {"windows": [], "truth": [3.0], "tolerance": 0.1},
    ),
    "two_phase": (two_phase, {"means": np.random.default_rng(0).normal(size=(5, 3))}),
    "learning_coefficients": (
        lambda losses, anchor, nbeta: stagewise.learning_coefficients(losses, anchor, nbeta=nbeta),
        {"losses": np.ones((2, 4, 1)), "anchor": np.ones(1), "nbeta": 3.0},
    ),
    "open_run": (lambda path, variables: stagewise.open_run(path, variables=variables), {"path": "x", "variables": []}),
    "TokenSums": (TokenSums, {"samples": [0, 1]}),
    "OnlineDetector": (stagewise.OnlineDetector, {"config": None}),
    "update": (
        lambda step, value, error: stagewise.OnlineDetector().update(step, value, error),
        {"step": 1, "value": 1.0, "error": 0.1},
    ),
    "InductionCallback": (
        stagewise.InductionCallback,
        {"every_n_steps": 5, "num_sequences": 2, "segment_length": 4, "copies": 2, "bos_token_id": None, "seed": 0},
    ),
    "InfluenceCallback": (
        stagewise.InfluenceCallback,
        {
            "schedule": stagewise.ProbeSchedule(),
            "sgld": stagewise.SGLDConfig(),
            "probe": stagewise.ProbeConfig(),
            "groups": None,
            "loss_fn": None,
            "component": None,
            "output_dir": None,
            "enabled": True,
        },
    ),
    "InterventionCallback": (
        stagewise.InterventionCallback,
        {
            "policy": stagewise.ConstantFactor({"a": 2.0}),
            "windows": stagewise.Spans([(1, 5)]),
            "mechanism": "loss",
            "groups": ["a"],
        },
    ),
    "ReweightedLoader": (
        stagewise.ReweightedLoader,
        {
            "dataset": list(range(8)),
            "groups": {"a": [True] * 4 + [False] * 4},
            "batch_size": 2,
            "seed": 0,
            "weights_for": None,
            "when_exhausted": "refuse",
            "rank": None,
            "world_size": None,
            "num_workers": 0,
        },
    ),
    "GroupedRows": (stagewise.GroupedRows, {"dataset": [{"x": 1}] * 3, "groups": {"a": [True, False, True]}}),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_public_call_fails_in_other_words(name):
    call, given = CALLS[name]
    if name != "open_run":
        call(**given)
    for argument in given:
        for value in BAD.values():
            words = refusal(lambda argument=argument, value=value: call(**{**given, argument: value}))
            assert words is None or "expected" in words or "pass" in words, (argument, words)


@pytest.mark.parametrize("name", ["find_flips", "t_interval", "InductionCallback", "ReweightedLoader", "update"])
def test_public_calls_refuse_what_is_no_number(name):
    call, given = CALLS[name]
    for argument, valid in given.items():
        if isinstance(valid, (int, float)) and not isinstance(valid, bool):
            for bad in ("4", True, object(), 10**5000, 1j):
                assert refusal(lambda argument=argument, bad=bad: call(**{**given, argument: bad})), (argument, bad)


@pytest.mark.parametrize(
    ("name", "bad"),
    [("config", None), ("step", "a"), ("step", True), ("chunk_size", 0), ("chunk_size", True), ("observed", 5)],
)
def test_chains_refuse_bad_arguments_before_the_first_step(name, bad):
    batch = (torch.zeros(4, 2),)
    given = {"observed": batch, "sampling": batch, "config": stagewise.SGLDConfig(lr=1e-3, localization=10.0)}
    module = torch.nn.Linear(2, 1)
    assert refusal(lambda: stagewise.run_chains(module, lambda item, x: item(x[0])[:, 0] ** 2, **{**given, name: bad}))
    assert refusal(lambda: stagewise.run_chains(None, lambda item, x: item(x[0])[:, 0] ** 2, **given))
    assert refusal(lambda: stagewise.run_chains(module, "loss", **given))
