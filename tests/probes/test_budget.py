from stagewise.probes.budget import Stopwatch, affords
from stagewise.probes.history import Record


def test_stopwatch_tells_the_time_since_it_was_last_looked_at():
    readings = iter([10.0, 12.5, 20.0])
    watch = Stopwatch(lambda: next(readings))
    assert watch.lap() == 2.5
    assert watch.lap() == 7.5


def test_first_probe_is_always_afforded():
    assert affords(Record(), 0.01)
    assert affords(Record(training_seconds=1e-9), 0.01)


def test_next_probe_must_fit_together_with_those_that_were():
    record = Record(training_seconds=100.0)
    record.add_probe_time(4.0, finished=True)
    record.add_probe_time(3.0, finished=True)
    assert affords(record, 0.1)
    assert not affords(record, 0.0999)


def test_interrupted_probe_is_paid_for_and_tells_no_price():
    record = Record(training_seconds=100.0)
    record.add_probe_time(5.0, finished=True)
    record.add_probe_time(1.0, finished=False)
    assert (record.probe_seconds, record.last_probe_seconds) == (6.0, 5.0)


def test_what_does_not_fit_now_is_paid_for_by_later_training():
    """A plain simulation: 1 s of training a step, probes of 3 s due at each step, a fifth of the time to spend."""
    record, taken = Record(), []
    for step in range(200):
        record.training_seconds += 1.0
        if affords(record, 0.2):
            record.add_probe_time(3.0, finished=True)
            taken.append(step)
            assert step == 0 or record.overhead <= 0.2
    assert taken == [0, *range(29, 200, 15)]
