"""scikit-learn's bundled tabular sets, split, scaled, and with wrong labels where they are asked for."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

SETS = {
    "breast_cancer": (datasets.load_breast_cancer, 400, 100),
    "wine": (datasets.load_wine, 118, 60),
    "digits": (datasets.load_digits, 400, 100),
}
"""By name: loader, samples to train on, samples to predict."""


@dataclass(frozen=True)
class Split:
    """A set of classes: inputs ``[sample, feature]`` of zero mean and unit variance, labels ``[sample]``."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def num_features(self) -> int:
        """Width of the inputs."""
        return self.train[0].shape[1]

    @property
    def num_classes(self) -> int:
        """Largest label plus one."""
        return int(torch.cat([self.train[1], self.test[1]]).max()) + 1


def load(name: str, *, wrong: float = 0.0, seed: int = 0) -> Split:
    """Split a set.

    Args:
        name: one of ``SETS``.
        wrong: share of training labels that are replaced by another class.
        seed: of the split and of the wrong labels.
    """
    generator = np.random.default_rng([seed, 7])
    loader, num_train, num_test = SETS[name]
    x, y = loader(return_X_y=True)
    order = generator.permutation(len(x))[: num_train + num_test]
    x, y = x[order], y[order].copy()
    mean, std = x[:num_train].mean(0), x[:num_train].std(0)
    x = np.clip((x - mean) / np.where(std > 0, std, 1), -5, 5)
    flipped = generator.permutation(num_train)[: round(wrong * num_train)]
    classes = y.max() + 1
    y[flipped] = (y[flipped] + generator.integers(1, classes, len(flipped))) % classes
    inputs, labels = torch.from_numpy(x).float(), torch.from_numpy(y).long()
    return Split(name, (inputs[:num_train], labels[:num_train]), (inputs[num_train:], labels[num_train:]))
