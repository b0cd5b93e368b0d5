import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.sweep.choosing import check_steps, choose

PYTHIA = [0, *(2**power for power in range(10)), *range(1000, 144000, 1000)]


@pytest.mark.parametrize("asked", [None, "all"])
def test_all_are_taken(asked):
    assert choose(PYTHIA, asked).steps == tuple(PYTHIA)
    assert choose(PYTHIA, asked).words == ""


@pytest.mark.parametrize("number", [2, 3, 8, 24, 60])
def test_a_logarithmic_grid_has_the_first_and_the_last_and_no_more_than_asked(number):
    steps = choose(PYTHIA, f"log:{number}").steps
    assert (steps[0], steps[-1]) == (0, 143000)
    assert number - 2 <= len(steps) <= number
    assert set(steps) <= set(PYTHIA)
    assert list(steps) == sorted(set(steps))


def test_a_logarithmic_grid_is_even_where_there_are_enough():
    there = list(range(1, 100_001))
    steps = np.log(choose(there, "log:12").steps[4:])
    assert np.diff(steps).std() < 0.02 * np.diff(steps).mean()


def test_fewer_than_asked_are_all_taken():
    assert choose([3, 5], "log:24").steps == (3, 5)
    assert choose([0, 7, 9], "log:2").steps == (0, 9)


def test_listed_steps_that_are_missing_are_named_and_the_others_taken():
    chosen = choose([1, 2, 4], [4, 3, 1])
    assert (chosen.steps, chosen.missing) == ((1, 4), (3,))
    assert chosen.words == "no checkpoint of step 3; going on with the 2 found"
    with pytest.raises(InputError, match=r"got steps 3, 5, of which there is no checkpoint; expected some of 1, 2, 4"):
        choose([1, 2, 4], [5, 3])


@pytest.mark.parametrize("words", ["log", "log:1", "log:0", "log:-3", "log:2.5", "every", "", "ALL", "log:9999999"])
def test_other_words_are_refused(words):
    with pytest.raises(InputError, match=r"expected all, log:<number of checkpoints>, or a list"):
        check_steps(words)
