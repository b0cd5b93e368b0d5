import numpy as np

from stagewise.influence.features import Features
from stagewise.probes.references import References


def probe(step):
    return Features(step, (0,), np.full((1, 2, 3), float(step)), np.zeros((1, 2, 3)))


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


def test_forgetting_never_changes_an_answer():
    steps = np.unique(np.rint(np.geomspace(1, 5000, 200)).astype(int)).tolist()
    references, everything = References(1.3), []
    for step in steps:
        past = [earlier for earlier in everything if earlier <= step / 1.3]
        found = references.for_step(step)
        assert (found.step if found else None) == (past[-1] if past else None)
        references.add(probe(step))
        everything.append(step)
    assert len(references.state_dict()) < 12


def test_state_survives_a_checkpoint():
    references, other = References(1.1), References(1.1)
    for step in (10, 20):
        references.add(probe(step))
    other.load_state_dict(references.state_dict())
    assert other.for_step(30).step == 20
    np.testing.assert_array_equal(other.for_step(30).samples, references.for_step(30).samples)
