"""How far ahead a chain looks: it compares best with D steps of training where nbeta / localization = lr D / 2."""

import numpy as np
import pytest
import torch

from stagewise.studies.toy.agreement import pooled_correlation
from stagewise.toy.descent import Weights, trajectory
from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.module import DeepLinear
from stagewise.toy.posterior import local_gaussian
from stagewise.toy.retraining import horizon_effect

LR = 0.02
STEPS = [int(step) for step in np.rint(np.geomspace(300, 2800, 12))]


@pytest.fixture(scope="module")
def run():
    hierarchy = Hierarchy()
    targets = torch.from_numpy(hierarchy.features.T.copy())
    module = DeepLinear(8, 15, lr=LR, seed=103)
    return trajectory(module.weights, targets, lr=LR, num_steps=3000), targets


@pytest.mark.parametrize("horizon", [50, pytest.param(100, marks=pytest.mark.slow)])
def test_the_posterior_looks_ahead_by_nbeta_over_localization(run, horizon):
    weights, targets = run
    effect = horizon_effect(weights, targets, lr=LR, steps=STEPS, horizons=[horizon])[0]

    def agreement(share):
        # Cold, so that only the ratio matters.
        found = [
            local_gaussian(
                Weights(weights.first[step], weights.second[step]), targets, nbeta=share * 1e5, localization=1e5
            ).covariance
            for step in STEPS
        ]
        return pooled_correlation(-np.stack(found), effect)

    matched = LR * horizon / 2
    assert agreement(matched) > 0.985
    for other in (matched / 4, matched / 2, matched * 1.7):
        assert agreement(matched) > agreement(other)
