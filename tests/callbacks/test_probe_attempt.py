"""Attempt of a probe on one of two ranks, with errors on either."""

from contextlib import contextmanager

import pytest

from stagewise.callbacks.fault_log import Faults, OtherRankError
from stagewise.callbacks.probe_attempt import attempt
from stagewise.callbacks.ranks import AgreedFault, RankLeftError, Ranks
from stagewise.errors import InputError
from tests.callbacks.runs import Regression

FINE, FAILED, NO_MEMORY, ENDS = 0, 1, 2, 3


class Prober:
    """Prober that counts its calls."""

    def __init__(self):
        self.returned = self.halved = 0

    def mark(self):
        return self

    def return_to(self, mark):
        self.returned += 1

    def halve_chunks(self):
        self.halved += 1
        return True


class TwoRanks(Ranks):
    """First of two ranks; the other one has these outcomes, agreement after agreement."""

    def __init__(self, faults, *met):
        super().__init__(world_size=2, ends=faults.is_fatal)
        self.met = list(met)

    def _worst(self, code):
        return max(code, self.met.pop(0))

    @contextmanager
    def as_rank_zero(self, module):
        yield


def tried(other, faults, probe, prober=None, step=3):
    prober = prober or Prober()
    ranks = TwoRanks(faults, *other)
    found = attempt(ranks, Regression(), prober, faults, step, probe, prober.halve_chunks)
    assert not ranks.met
    return found


def raising(error):
    def probe():
        raise error

    return probe


def test_a_probe_that_succeeds_on_both_ranks_is_returned():
    prober = Prober()
    assert tried((FINE,), Faults("warn"), lambda: 7, prober) == 7
    assert prober.returned == prober.halved == 0


def test_a_failure_on_the_other_rank_fails_the_probe_here():
    prober, faults = Prober(), Faults("warn")
    with pytest.warns(UserWarning, match="failed on another rank at step 3"):
        assert tried((FAILED,), faults, lambda: 7, prober) is None
    assert faults.record.faults == {"other_rank": 1}
    assert prober.returned == 1


def test_chunks_are_halved_once_if_the_other_rank_runs_out_of_memory():
    prober, faults = Prober(), Faults("warn")
    assert tried((NO_MEMORY, FINE), faults, lambda: 7, prober) == 7
    assert prober.halved == 1
    assert faults.record.faults == {}


@pytest.mark.filterwarnings("ignore")
def test_a_fatal_error_on_one_rank_ends_the_run_on_both():
    with pytest.raises(OtherRankError, match="ends the run"):
        tried((ENDS,), Faults("raise"), lambda: 7)
    with pytest.raises(KeyError):
        tried((FINE,), Faults("raise"), raising(KeyError("x")))
    starting = Faults("warn")
    starting.starting = True
    with pytest.raises(InputError):
        tried((FINE,), starting, raising(InputError("x")), step=0)
    assert tried((FINE,), starting, raising(KeyError("x")), step=0) is None


def test_ctrl_c_on_this_rank_reaches_the_other_and_propagates():
    ranks = TwoRanks(Faults("warn"), FINE)
    with pytest.raises(KeyboardInterrupt):
        ranks.each(raising(KeyboardInterrupt()))
    assert not ranks.met  # told, as a fault that ends the run


def test_an_agreed_fault_is_not_agreed_on_again():
    faults = Faults("warn")
    ranks = TwoRanks(faults, FINE, FAILED)

    def body():
        ranks.each(lambda: 1)
        try:
            ranks.each(lambda: 2)
        finally:
            raise KeyError("on the way out, on this rank alone")

    with pytest.raises(AgreedFault) as caught:
        ranks.each(body)
    assert (caught.value.worst, caught.value.own) == ("probe", None)
    assert not ranks.met


@pytest.mark.parametrize("error", [RuntimeError("Connection closed by peer"), KeyboardInterrupt()])
def test_an_error_during_an_exchange_is_not_announced(error):
    ranks = TwoRanks(Faults("warn"))

    def exchange():
        with ranks._returning(), ranks._exchange():
            raise error

    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else RankLeftError
    with pytest.raises(expected):
        attempt(ranks, Regression(), Prober(), Faults("warn"), 3, lambda: exchange(), lambda: True)


def test_together_raises_the_error_of_this_rank_or_names_another_rank():
    def fit(work):
        with TwoRanks(Faults("warn"), FAILED).together:
            work()

    with pytest.raises(OtherRankError):
        fit(lambda: None)
    with pytest.raises(KeyError):
        fit(raising(KeyError("x")))


def test_a_single_rank_exchanges_nothing():
    ranks = Ranks()
    assert ranks.alone
    assert ranks.decide(lambda: 7) == ranks.each(lambda: 7) == 7
    assert ranks.gather("mine") == ["mine"]
    with ranks.together, pytest.raises(KeyError):
        ranks.each(raising(KeyError("x")))
