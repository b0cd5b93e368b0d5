import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.interventions.sampler import ReweightedBatches
from stagewise.interventions.strata import Strata
from stagewise.interventions.supply import check_supply

STRATA = Strata({"a": np.arange(400) < 60})


def window(number):
    return {"a": 4.0} if 10 <= number < 20 else {}


def _run(num_batches, batches_per_epoch, seed):
    """Draw the run itself; None, or the error."""
    batches = ReweightedBatches(STRATA, 8, seed, weights_for=window)
    done, epoch = 0, 0
    try:
        while done < num_batches:
            batches.epoch = epoch
            batches.begin_epoch(done)
            for number, _ in enumerate(batches, start=1):
                done += 1
                if number == batches_per_epoch or done == num_batches:
                    break
            epoch += 1
    except InputError as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_batches", [5, 20, 25, 30, 40, 50, 70])
@pytest.mark.parametrize("batches_per_epoch", [50, 15, 35])
def test_a_run_is_refused_beforehand_if_and_only_if_it_would_fail(num_batches, batches_per_epoch, seed):
    fails = _run(num_batches, batches_per_epoch, seed) is not None
    settings = {"batch_size": 8, "seed": seed, "num_batches": num_batches, "batches_per_epoch": batches_per_epoch}
    if fails:
        with pytest.raises(InputError, match="in 'a', of which an epoch needs") as caught:
            check_supply(STRATA, window, **settings)
        assert "\n" not in str(caught.value)
    else:
        check_supply(STRATA, window, **settings)
    if num_batches == 50 and batches_per_epoch == 50:
        assert fails
    if num_batches == 20:
        assert not fails


def test_the_need_is_what_is_drawn():
    """Ten batches of 8 from group a alone, which has three samples."""
    strata = Strata({"a": np.arange(400) < 3, "b": np.arange(400) >= 3})
    with pytest.raises(InputError, match="got 3 samples in 'a', of which an epoch needs 80;"):
        check_supply(strata, lambda _: {"b": 0.0}, batch_size=8, seed=0, num_batches=10)


def test_no_batch_is_refused():
    with pytest.raises(InputError, match="at least one batch"):
        check_supply(STRATA, window, batch_size=401, seed=0, num_batches=3)
