"""A try at a probe on one of two ranks: what the other one meets decides too."""

from types import SimpleNamespace

import pytest
import torch

from stagewise.callbacks.attempt import attempt
from stagewise.callbacks.faults import Faults, OtherRankError
from stagewise.errors import InputError
from tests.callbacks.runs import Regression

FINE, FAILED, NO_MEMORY, ENDS = 0.0, 1.0, 2.0, 3.0


class Prober:
    """Counts what is asked of it."""

    def __init__(self):
        self.returned = self.halved = 0

    def mark(self):
        return self

    def return_to(self, mark):
        self.returned += 1

    def halve_chunks(self):
        self.halved += 1
        return True


def tried(other, faults, probe, prober=None, step=3):
    prober = prober or Prober()
    return attempt(trainer(*other), Regression(), prober, faults, step, probe, prober.halve_chunks)


def trainer(*other):
    """Of two ranks, the other one of which meets these, try after try."""
    met = iter(other)

    def reduce(code, reduce_op):
        assert reduce_op == "max"
        return torch.maximum(code, torch.tensor(next(met)))

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce, broadcast=lambda value: value)
    return SimpleNamespace(world_size=2, strategy=strategy)


def raising(error):
    def probe():
        raise error

    return probe


def test_a_probe_that_succeeds_on_both_ranks_is_returned():
    prober = Prober()
    assert tried((FINE,), Faults("warn"), lambda: 7, prober) == 7
    assert prober.returned == prober.halved == 0


def test_a_failure_of_the_other_rank_is_one_here():
    prober, faults = Prober(), Faults("warn")
    with pytest.warns(UserWarning, match="failed on another rank at step 3"):
        assert tried((FAILED,), faults, lambda: 7, prober) is None
    assert faults.record.faults == {"other_rank": 1}
    assert prober.returned == 1


def test_chunks_are_halved_once_where_the_other_rank_has_no_memory():
    prober, faults = Prober(), Faults("warn")
    assert tried((NO_MEMORY, FINE), faults, lambda: 7, prober) == 7
    assert prober.halved == 1
    assert faults.record.faults == {}


@pytest.mark.filterwarnings("ignore")
def test_what_ends_the_run_on_one_rank_ends_it_on_both():
    with pytest.raises(OtherRankError, match="ends the run"):
        tried((ENDS,), Faults("raise"), lambda: 7)
    with pytest.raises(KeyError):
        tried((FINE,), Faults("raise"), raising(KeyError("x")))
    starting = Faults("warn")
    starting.starting = True
    with pytest.raises(InputError):
        tried((FINE,), starting, raising(InputError("x")), step=0)
    assert tried((FINE,), starting, raising(KeyError("x")), step=0) is None
