import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.interventions.check_weights import check_names, complete_weights


def test_groups_that_are_not_named_have_weight_1():
    weights = complete_weights({"b": np.float32(0.5)}, ["a", "b"])
    assert weights == {"a": 1.0, "b": 0.5}
    assert list(weights) == ["a", "b"]
    assert all(type(weight) is float for weight in weights.values())


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), "4", None, True])
def test_weights_that_are_no_weights_are_refused(weight):
    with pytest.raises(InputError, match="for group 'a'; expected a finite number of 0 or more"):
        complete_weights({"a": weight}, ["a"])


def test_unknown_groups_and_other_types_are_refused():
    with pytest.raises(InputError, match="got group 'c'; expected one of 'a', 'b'"):
        complete_weights({"c": 1.0}, ["a", "b"])
    with pytest.raises(InputError, match="there are no groups"):
        check_names(["c"], [])
    with pytest.raises(InputError, match="weights of type list"):
        complete_weights([1.0], ["a"])
