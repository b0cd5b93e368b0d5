"""Ranges in annotations: held by settings, arguments and calls, told in one form, and read by jsonargparse."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from stagewise.checks.bounds import check_arguments, check_value, checked, settle_fields
from stagewise.checks.ranges import (
    Fraction,
    Name,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    at_least,
    check_distinct,
    fraction,
    more_than,
    within,
)
from stagewise.errors import InputError


@dataclass(frozen=True)
class Settings:
    """Settings of a test.

    Attributes:
        lr: step size.
        num_draws: draws.
        share: of something.
        steps: of training.
        weights: by name.
        name: of a folder.
    """

    lr: Annotated[float, more_than(0, "0.1 is usual")] | Literal["auto"] = "auto"
    num_draws: Annotated[int, at_least(2)] = 10
    share: Fraction | None = None
    steps: list[NonNegativeInt] | None = None
    weights: dict[str, NonNegative] | None = None
    name: Name = "runs"

    def __post_init__(self) -> None:
        settle_fields(self, prefix="test.")


LIMITS = {
    "at_least": (at_least(2), lambda x: x >= 2),
    "more_than": (more_than(0), lambda x: x > 0),
    "closed": (within(0, 1), lambda x: 0 <= x <= 1),
    "open": (fraction(), lambda x: 0 < x < 1),
    "half open": (within(0, 1, with_high=False), lambda x: 0 <= x < 1),
    "the other half": (within(0, 1, with_low=False), lambda x: 0 < x <= 1),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_holds_for_what_its_words_say(name):
    limit, truth = LIMITS[name]
    for value in (-1, -1e-300, 0, 1e-300, 0.5, math.nextafter(1, 0), 1, math.nextafter(1, 2), 2, 3):
        assert limit.holds(value) == truth(value), value
        hint = Annotated[float, limit]
        if truth(value):
            assert check_value("x", value, hint) == value
        else:
            with pytest.raises(InputError, match="got x="):
                check_value("x", value, hint)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 0.0}, "got test.lr=0.0; expected a finite number > 0 or 'auto'; 0.1 is usual"),
        (
            {"lr": "fast"},
            "got test.lr='fast'; expected a finite number > 0 or 'auto'; see the documentation of Settings",
        ),
        (
            {"lr": math.inf},
            "got test.lr=inf; expected a finite number > 0 or 'auto'; see the documentation of Settings",
        ),
        ({"num_draws": 1}, "got test.num_draws=1; expected a whole number >= 2; 10 is the default"),
        ({"num_draws": 2.5}, "got test.num_draws=2.5; expected a whole number >= 2; write 2"),
        ({"share": 1}, "got test.share=1; expected a finite number in (0, 1) or null; leave it out for what is usual"),
        (
            {"steps": [1, -1]},
            "got test.steps=[1, -1]; expected a list, each entry a whole number >= 0 or null; leave it out for what is "
            "usual",
        ),
        (
            {"weights": {"a": -0.5}},
            "got test.weights={'a': -0.5}; expected a mapping, each entry a finite number >= 0 or null; leave it out "
            "for what is usual",
        ),
        ({"name": ""}, "got test.name=''; expected text that is not empty; runs is the default"),
    ],
)
def test_a_message_says_type_range_and_what_is_usual(given, words):
    with pytest.raises(InputError) as caught:
        Settings(**given)
    assert str(caught.value) == words


def test_what_is_within_range_is_taken_and_numpy_s_becomes_python_s():
    found = Settings(lr=np.float32(0.5), num_draws=np.int64(2), share=0.5, steps=np.array([0, 3]), weights={"a": 0})
    assert found == Settings(0.5, 2, 0.5, [0, 3], {"a": 0})
    assert type(found.num_draws) is int


def test_arguments_and_calls_are_held_to_ranges_too():
    def build(size: PositiveInt, rate: Positive = 1.0) -> None:
        check_arguments("Thing", build, locals())

    @checked
    def call(size: PositiveInt, rate: Positive = 1.0) -> float:
        return size * rate

    assert call(2, rate=0.5) == 1.0
    for function in (build, call):
        function(1)
        with pytest.raises(InputError, match="got size=0; expected a whole number >= 1"):
            function(0)
        with pytest.raises(InputError, match=r"got rate=-1.0; expected a finite number > 0; 1.0 is the default"):
            function(1, rate=-1.0)


@pytest.mark.parametrize("values", [[], [1, 1], ["a", "b", "a"]])
def test_a_list_that_is_empty_or_repeats_is_refused(values):
    with pytest.raises(InputError, match="expected one or more, each once; name some"):
        check_distinct("seeds", values, "name some")
    check_distinct("seeds", [2, 1], "name some")


def parser():
    found = ArgumentParser(exit_on_error=False)
    found.add_class_arguments(Settings, "test")
    return found


def test_jsonargparse_reads_values_by_type_and_shows_the_range(capsys):
    parsed = parser().parse_args(["--test.lr=0.5", "--test.num_draws", "3", "--test.steps=[4]", "--test.steps+=5"])
    assert parser().instantiate_classes(parsed).test == Settings(lr=0.5, num_draws=3, steps=[4, 5])
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    for range_of in ("Annotated[float, > 0]", "Annotated[int, >= 2]", "in (0, 1)", "list[Annotated[int, >= 0]]"):
        assert range_of in words
    assert "0x" not in words
    assert "Limit" not in words


def test_a_saved_configuration_reads_back():
    parsed = parser().parse_args(["--test.lr=0.5", "--test.weights={a: 2}", "--test.share=0.25"])
    assert parser().parse_string(parser().dump(parsed)) == parsed


def test_out_of_range_in_a_configuration_is_told_in_the_words_of_python():
    parsed = parser().parse_args(["--test.num_draws=1"])
    with pytest.raises(InputError, match=r"got test\.num_draws=1; expected a whole number >= 2"):
        parser().instantiate_classes(parsed)
