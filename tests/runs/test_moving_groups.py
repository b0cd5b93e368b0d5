import numpy as np
import pytest

from stagewise.runs.moving_groups import moves
from tests.runs.flipping_run import flipping_run


def test_the_group_that_moves_comes_first_and_alone_is_sure():
    run = flipping_run(error=0.1)
    found = moves(run, 250, 850)
    assert [(item.group, item.sure) for item in found] == [("cat", True), ("dog", False)]
    slope = np.linspace(-1, 1, 10)
    # The probes around the interval: steps 200 and 900.
    assert found[0].before == pytest.approx(slope[1])
    assert found[0].after == pytest.approx(slope[8])
    assert found[0].z == pytest.approx((slope[8] - slope[1]) / (0.1 * np.sqrt(2)))


def test_few_chains_need_a_larger_change():
    assert moves(flipping_run(error=0.3, chains=200), 250, 850)[0].sure
    assert not moves(flipping_run(error=0.3, chains=2), 250, 850)[0].sure


def test_an_interval_not_enclosed_by_probes_has_no_moves():
    run = flipping_run()
    assert moves(run, 50, 500) == []
    assert moves(run, 500, 1500) == []
    assert moves(flipping_run(chains=1), 250, 850) == []
