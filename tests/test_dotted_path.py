import math
import os.path

import pytest

from stagewise.dotted_path import load_callable
from stagewise.errors import InputError


def test_a_function_is_found_by_its_path():
    assert load_callable("math.hypot", kind="norm", signature="(x, y) -> z") is math.hypot
    assert load_callable("os.path.join", kind="join", signature="(a, b) -> c") is os.path.join


@pytest.mark.parametrize("path", ["", "hypot", "no.such.module", "math.absent", ".math.hypot", "math."])
def test_paths_that_lead_nowhere_are_refused_in_the_words_of_the_caller(path):
    with pytest.raises(InputError, match=f"got norm {path!r}, which cannot be imported"):
        load_callable(path, kind="norm", signature="(x, y) -> z")


@pytest.mark.parametrize("path", ["math.pi", "fractions.Fraction"])
def test_what_is_no_function_is_refused(path):
    with pytest.raises(InputError, match=r"expected a function \(x, y\) -> z"):
        load_callable(path, kind="norm", signature="(x, y) -> z")
