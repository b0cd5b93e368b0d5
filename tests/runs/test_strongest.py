"""The strongest pairs are those that are significant, by size; then the others."""

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.runs.strongest import strongest_pairs
from tests.reporting.test_run_pictures import a_run


def plain_ranking(run, part="within"):
    """The same with loops: errors of .03, four chains, t of 3 degrees of freedom."""
    names, ranked = [str(value) for value in run["group"].values], []
    for row, one in enumerate(names):
        for two in names[row:]:
            sizes = [abs(float(item)) for item in run["group_bif"].sel(part=part, group=one, group_j=two)]
            if not np.isnan(sizes).all():
                ranked.append(
                    (max([size for size in sizes if size > 0.03 * 3.1824463], default=0.0), max(sizes), (one, two))
                )
    return [item[2] for item in sorted(ranked, key=lambda item: (-item[0], -item[1]))]


@pytest.mark.parametrize("part", ["within", "total"])
def test_order_is_that_of_a_plain_loop(part):
    run = a_run(names=[f"g{number}" for number in range(6)])
    assert strongest_pairs(run, 99, part=part) == plain_ranking(run, part)
    assert strongest_pairs(run, 3, part=part) == plain_ranking(run, part)[:3]


def test_what_is_told_from_zero_comes_before_what_is_large_and_unsure():
    run = a_run().copy(deep=True)
    run["group_bif_se"].loc[{"group": "a", "group_j": "a"}] = 100.0
    order = strongest_pairs(run, 99)
    assert order[0] != ("a", "a")
    # With one chain nothing is significant, and size alone decides.
    assert strongest_pairs(a_run(num_chains=1), 1) == [("a", "a")]


def test_probes_out_of_equilibrium_do_not_count():
    run = a_run().copy(deep=True)
    run["group_bif"].loc[{"group": "b", "group_j": "b", "step": 10}] = 50.0
    assert strongest_pairs(run, 1) == [("b", "b")]
    assert strongest_pairs(run.assign(equilibrated=("step", [0, 1, 1, 1, 1])), 1) == [("a", "a")]


def test_a_count_below_one_is_refused():
    with pytest.raises(InputError, match="count"):
        strongest_pairs(a_run(), 0)
