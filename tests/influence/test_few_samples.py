"""Groups of few samples are named once at the start of a run, and in its report."""

import warnings

import pytest
import torch

from stagewise import InfluenceCallback, ProbeSchedule
from stagewise.influence.few_samples import few_samples_words
from stagewise.reporting.spans_table import spans_table
from stagewise.runs.open import open_run
from tests.callbacks.runs import SGLD, Regression, fit, regression_data


def test_groups_below_eight_samples_are_named_and_others_are_not():
    words = few_samples_words({"a": 7, "b": 8, "c": 1})
    assert "fewer than 8 samples: a (7 samples), c (1 sample); their influence" in words
    assert few_samples_words({"b": 8}) is None
    assert "and 2 more;" in few_samples_words({f"g{number}": 2 for number in range(8)})


@pytest.mark.parametrize(("size", "warned"), [(5, True), (8, False)])
def test_a_run_warns_once_at_its_start_and_in_its_report(tmp_path, size, warned):
    mask = torch.arange(20) < size
    callback = InfluenceCallback(
        ProbeSchedule(every_n_steps=2), SGLD, observed=regression_data()[:20], groups={"few": mask, "rest": ~mask}
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, Regression(), regression_data(), callback, max_steps=6)
    told = [str(item.message) for item in caught if "fewer than 8 samples" in str(item.message)]
    assert len(told) == warned
    shown = spans_table(open_run(callback.folder)).markdown()
    assert ("**Few samples**: groups with losses in fewer than 8 samples: few (5 samples)" in shown) == warned
