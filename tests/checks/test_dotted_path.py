import math
import os.path
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.callbacks.intervention_plan import resolve_policy
from stagewise.checks.dotted_path import load_callable
from stagewise.errors import InputError
from stagewise.interventions.policy import ConstantFactor, from_path
from stagewise.lm.classes.reading import load_predicate
from tests.outcomes import outcome


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


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('no\\ngood')", "RuntimeError: no good"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("import there_is_no_such_module", "No module named 'there_is_no_such_module'"),
        ("1 / 0", "ZeroDivisionError"),
        ("other = 1", "has no attribute 'policy'"),
    ],
)
def test_a_module_that_fails_is_told_in_one_line_with_its_cause(tmp_path, monkeypatch, source, words):
    (tmp_path / "theirs_that_fails.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        InputError, match=f"got policy 'theirs_that_fails.policy', which cannot be imported .*{words}"
    ) as e:
        from_path("theirs_that_fails.policy")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "arguments", ["", "names", "names, window, step", "names, *, window, step, influence, more", "*, names"]
)
def test_a_policy_of_other_arguments_is_refused_before_it_is_called(tmp_path, monkeypatch, arguments):
    (tmp_path / "theirs_of_others.py").write_text(f"def policy({arguments}):\n    raise RuntimeError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "theirs_of_others", raising=False)
    with pytest.raises(
        InputError, match=r"with arguments \(.*expected a function \(names, \*, window, step, influence"
    ):
        from_path("theirs_of_others.policy")
    with pytest.raises(InputError, match="expected a function"):
        resolve_policy(sys.modules["theirs_of_others"].policy)


@pytest.mark.parametrize("policy", [lambda names, **rest: {}, lambda *a, **b: {}, ConstantFactor({"a": 2.0}), print])
def test_a_policy_that_can_be_called_passes(policy):
    if policy is print:
        with pytest.raises(InputError, match="expected a function"):
            resolve_policy(policy)
    else:
        assert resolve_policy(policy) is policy


@pytest.mark.parametrize("path", [None, 3, ["math.hypot"], True])
def test_a_path_is_text(path):
    with pytest.raises(InputError, match="as text"):
        load_callable(path, kind="norm", signature="(x, y) -> z")


def test_a_predicate_of_other_arguments_is_refused():
    with pytest.raises(InputError, match=r"expected a function \(text\)"):
        load_predicate("os.path.samefile")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20) | st.text("abc._ 0/\\\n", max_size=12))
def test_any_path_is_loaded_or_refused_in_one_line(path):
    found, refused = outcome(lambda: load_callable(path, kind="norm", signature="(x, y) -> z"))
    assert refused is not None or callable(found)
