import numpy as np
import pytest
import torch

from stagewise.errors import InputError
from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.initialisation import aligned_weights, gaussian_weights


def generator(seed=100):
    return torch.Generator().manual_seed(seed)


def test_gaussian_weights_have_the_asked_shape_and_spread():
    weights = gaussian_weights(40, 50, hidden=60, std=0.02, generator=generator())
    assert weights.first.shape == (60, 40)
    assert weights.second.shape == (50, 60)
    for part in weights:
        assert part.dtype == torch.float64
        assert float(part.std()) == pytest.approx(0.02, rel=0.05)
        assert abs(float(part.mean())) < 0.002


@pytest.mark.parametrize("make", ["gaussian", "aligned"])
def test_the_generator_alone_decides(make):
    modes = Hierarchy().modes()

    def made(seed):
        if make == "gaussian":
            return gaussian_weights(8, 15, hidden=9, std=1.0, generator=generator(seed))
        return aligned_weights(modes, 9, initial=1.0, generator=generator(seed))

    first, torch_state = made(100), torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(first, made(100), strict=True))
    assert all(not torch.allclose(a, b) for a, b in zip(first, made(101), strict=True))
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("initial", [1e-3, np.geomspace(1e-2, 1e-5, 8)])
def test_aligned_weights_are_balanced_and_hold_each_mode_at_its_strength(initial):
    modes = Hierarchy().modes()
    weights = aligned_weights(modes, 11, initial=initial, generator=generator())
    assert weights.first.shape == (11, 8)
    assert weights.first.dtype == torch.float64
    want = modes.left * np.broadcast_to(initial, 8) @ modes.right.T
    np.testing.assert_allclose(weights.map().numpy(), want, atol=1e-15)
    np.testing.assert_allclose(weights.first @ weights.first.T, weights.second.T @ weights.second, atol=1e-15)


def test_bad_sizes_and_strengths_are_refused():
    modes = Hierarchy().modes()
    with pytest.raises(InputError, match=r"hidden=7.*8"):
        aligned_weights(modes, 7, initial=1e-3, generator=generator())
    for initial in (0.0, -1.0, float("nan"), np.full(7, 1e-3), np.zeros(8)):
        with pytest.raises(InputError, match="initial"):
            aligned_weights(modes, 8, initial=initial, generator=generator())
    for sizes in ((0, 2, 2), (2, 0, 2), (2, 2, 0)):
        with pytest.raises(InputError, match="1 or more"):
            gaussian_weights(*sizes[:2], hidden=sizes[2], std=1.0, generator=generator())
    for std in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="std"):
            gaussian_weights(2, 2, hidden=2, std=std, generator=generator())
