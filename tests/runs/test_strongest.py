"""The strongest pairs are those that are significant, by size; then the others."""

import numpy as np
import pytest
from scipy import stats

from stagewise.errors import InputError
from stagewise.runs.strongest import strongest_pairs
from tests.reporting.test_run_pictures import a_run


def plain_ranking(run, part="within"):
    """Ranks pairs with loops: errors of .03, four chains, t of 3 degrees of freedom, five probes together at 95 %."""
    limit = 0.03 * stats.t.isf((1 - 0.95 ** (1 / 5)) / 2, 3)
    names, ranked = [str(value) for value in run["group"].values], []
    for row, one in enumerate(names):
        for two in names[row:]:
            sizes = [abs(float(item)) for item in run["group_bif"].sel(part=part, group=one, group_j=two)]
            if not np.isnan(sizes).all():
                ranked.append((max([size for size in sizes if size > limit], default=0.0), max(sizes), (one, two)))
    return [item[2] for item in sorted(ranked, key=lambda item: (-item[0], -item[1]))]


@pytest.mark.parametrize("part", ["within", "total"])
def test_order_is_that_of_a_plain_loop(part):
    run = a_run(names=[f"g{number}" for number in range(6)])
    assert strongest_pairs(run, 99, part=part) == plain_ranking(run, part)
    assert strongest_pairs(run, 3, part=part) == plain_ranking(run, part)[:3]


def test_significant_influence_precedes_large_unsure_influence():
    run = a_run().copy(deep=True)
    run["group_bif_se"].loc[{"group": "a", "group_j": "a"}] = 100.0
    order = strongest_pairs(run, 99)
    assert order[0] != ("a", "a")
    # With one chain nothing is significant, and size alone decides.
    assert strongest_pairs(a_run(num_chains=1), 1) == [("a", "a")]


def test_influence_that_one_of_many_probes_reaches_by_chance_is_not_sure():
    run = a_run().copy(deep=True)
    run["group_bif"].loc[{"group": ["a", "b"], "group_j": ["a", "b"]}] = 0.01
    run["group_bif"].loc[{"group": "b", "group_j": "b", "step": 20}] = 0.03 * 3.5  # beyond t, 3.18, of one probe only
    run["group_bif"].loc[{"group": "a", "group_j": "a", "step": slice(20, 30)}] = 0.03 * 6.1  # and of five, 6.01
    assert strongest_pairs(run.sel(group=["a", "b"], group_j=["a", "b"]), 1) == [("a", "a")]
    of_two = run.sel(step=[20, 30], group=["a", "b"], group_j=["a", "b"])
    assert strongest_pairs(of_two, 1, confidence=0.8) == [("a", "a")]


def test_sure_pairs_of_two_groups_may_come_before_groups_with_themselves():
    run = a_run().copy(deep=True)
    run["group_bif"][:] = 0.0
    for pair, size in {("a", "a"): 3.0, ("a", "b"): 1.0, ("a", "c"): 0.05, ("b", "b"): 2.0, ("c", "c"): 0.06}.items():
        run["group_bif"].loc[{"group": pair[0], "group_j": pair[1], "step": 30}] = size
    run = run.assign(group_bif=run["group_bif"].where(run["group_bif"].notnull()))
    plain, crossed = strongest_pairs(run, 5), strongest_pairs(run, 5, cross_first=True)
    assert plain == [("a", "a"), ("b", "b"), ("a", "b"), ("c", "c"), ("a", "c")]
    assert crossed == [("a", "b"), ("a", "a"), ("b", "b"), ("a", "c"), ("b", "c")]


def test_probes_out_of_equilibrium_do_not_count():
    run = a_run().copy(deep=True)
    run["group_bif"].loc[{"group": "b", "group_j": "b", "step": 10}] = 50.0
    assert strongest_pairs(run, 1) == [("b", "b")]
    assert strongest_pairs(run.assign(equilibrated=("step", [0, 1, 1, 1, 1])), 1) == [("a", "a")]


def test_a_count_below_one_is_refused():
    with pytest.raises(InputError, match="count"):
        strongest_pairs(a_run(), 0)
