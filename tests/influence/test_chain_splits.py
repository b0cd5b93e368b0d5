import numpy as np
import pytest

from stagewise.influence.split import Centering, second_moment, split
from stagewise.influence.uncertainty import ChainSplits
from tests.influence.test_split import draws


@pytest.mark.parametrize("reference", [None, draws(4, 5, 3, 2)])
@pytest.mark.parametrize("centering", list(Centering))
@pytest.mark.parametrize("moment", [second_moment, lambda x: np.square(x.reshape(-1, 3)).mean(axis=0)])
def test_subsets_of_chains_are_split_as_if_alone(reference, centering, moment):
    current = draws(4, 7, 3, 1, shift=2.0)
    over = ChainSplits(current, reference, centering=centering, moment=moment)
    for rows in ([0, 1, 2, 3], [0, 2, 3], [1], [3, 1]):
        want = split(
            current[rows], None if reference is None else reference[rows], centering=centering, moment=moment
        ).parts()
        for name, got in over(rows).parts().items():
            np.testing.assert_allclose(got, want[name], atol=1e-12, err_msg=f"{name} over {rows}")
