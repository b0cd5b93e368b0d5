import pytest
import torch

from stagewise.errors import InputError
from stagewise.loading.order import seeded


def test_streams_of_a_seed_differ_and_repeat():
    def draw(*key):
        return torch.rand(4, generator=seeded(*key))

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert len({tuple(draw(seed, stream).tolist()) for seed in range(3) for stream in range(3)}) == 9


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="got seed -1"):
        seeded(-1)
