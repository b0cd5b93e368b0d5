import numpy as np
import pytest

from stagewise.influence.group_draws import GroupDraws
from stagewise.probes.references import MAX_CACHED, References


def probe(step):
    return GroupDraws(step, (0,), np.full((1, 2, 3), float(step)), np.zeros((1, 2, 3)))


def of_all(steps, step, ratio):
    """The latest of all probes at or before step / ratio."""
    past = [earlier for earlier in steps if earlier <= step / ratio and earlier < step]
    return past[-1] if past else None


def test_reference_is_the_latest_probe_at_or_before_t_over_r():
    references = References(1.25)
    assert references.for_step(10) is None
    for step in (8, 10, 20, 40):
        references.add(probe(step))
    assert references.for_step(50).step == 40
    assert references.for_step(49).step == 20


def test_same_step_is_no_reference():
    references = References(1.0001)
    references.add(probe(0))
    assert references.for_step(0) is None


@pytest.mark.parametrize(
    ("ratio", "steps"),
    [
        (1.3, np.unique(np.rint(np.geomspace(1, 5000, 200)).astype(int)).tolist()),
        (1.15, list(range(0, 114 * 50, 50))),
        (1.15, [0, 1, 2, 3, 50, 51, 500, 5000]),
        # A schedule that a budget has thinned.
        (1.15, np.flatnonzero(np.random.default_rng(0).random(110) < 0.3).tolist()),
    ],
    ids=["log-spaced", "every 50", "listed", "thinned"],
)
def test_forgetting_never_changes_an_answer_where_probes_lie_apart(ratio, steps):
    references, everything = References(ratio), []
    for step in steps:
        found = references.for_step(step)
        assert (found.step if found else None) == of_all(everything, step, ratio)
        references.add(probe(step))
        everything.append(step)
        assert len(references.state_dict()) <= MAX_CACHED


def test_dense_probes_of_a_long_run_stay_few_and_their_references_close():
    ratio = 1.15
    references, everything, most = References(ratio), [], 0
    for step in range(10, 40_000, 10):
        found, exact = references.for_step(step), of_all(everything[-700:], step, ratio)
        if exact is not None:
            assert exact / ratio ** (1 / 16) - 10 <= found.step <= exact
        references.add(probe(step))
        everything.append(step)
        most = max(most, len(references.state_dict()))
    assert 10 < most <= MAX_CACHED


def test_state_survives_a_checkpoint():
    references, other = References(1.1), References(1.1)
    for step in (10, 20):
        references.add(probe(step))
    other.load_state_dict(references.state_dict())
    assert other.for_step(30).step == 20
    np.testing.assert_array_equal(other.for_step(30).samples, references.for_step(30).samples)
