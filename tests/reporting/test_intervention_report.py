import json

import numpy as np
import pytest

from stagewise.interventions.policy import ConstantFactor
from stagewise.interventions.span import Span
from stagewise.interventions.strata import Strata
from stagewise.interventions.weight_plan import Plan
from stagewise.reporting.intervention import build_report, report_markdown

STRATA = Strata({"a": np.arange(8) < 2})


def test_a_report_holds_what_was_done_and_not_what_was_still_planned():
    plan = Plan.from_spans(["a"], [Span(2, 4), Span(20, 30)], ConstantFactor({"a": 3.0}))
    report = build_report(plan, mechanism="loss", policy="by hand", end=10, strata=STRATA)
    assert json.loads(json.dumps(report)) == report
    assert [change["step"] for change in report["changes"]] == [2, 4]
    # Two steps with a quarter of the data at weight 3: rho = 3 / 1.5.
    assert report["budget"]["groups"]["a"] == pytest.approx(2.0)
    assert report["budget"]["steps"] == 2
    assert report["drawn"] is None
    text = report_markdown(report)
    assert "| 2 | open | 3 | window 0 [2, 4) opens |\n| 4 | - | 1 | window 0 [2, 4) closes |" in text
    assert "**Budget** up to step 10: sum of rho - 1 in steps: a +2; mass moved 0.5 steps; 2 steps reweighted." in text


def test_without_windows_or_data_it_says_so():
    report = build_report(Plan(["a"]), mechanism="sampling", policy="p", end=5)
    assert report["budget"] is None
    assert "No window was opened." in report_markdown(report)
    assert "Budget" not in report_markdown(report)
    assert "7 batches late" in report_markdown({**report, "prefetch_lag": 7})
