import numpy as np
import torch

from stagewise.influence.groups import Groups
from stagewise.probes.data_digest import data_digest


def groups(name="all"):
    return Groups({name: np.ones(3, dtype=bool)}, np.ones(3, dtype=bool))


def test_the_digest_sees_every_value_of_every_batch_and_the_groups():
    x, y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 2])
    same = data_digest([(x, y), {"a": y}], groups())
    assert data_digest([(x.clone(), y.clone()), {"a": y}], groups()) == same
    others = [
        data_digest([(x + 1e-7, y), {"a": y}], groups()),
        data_digest([(x, y), {"a": y.flip(0)}], groups()),
        data_digest([(x, y)], groups()),
        data_digest([(x, y), {"a": y}], groups("other")),
    ]
    assert len({same, *others}) == 5


def test_views_and_bfloat16_count_by_their_values():
    x = torch.arange(6.0).reshape(2, 3)
    assert data_digest([(x.T,)], groups()) == data_digest([(x.T.contiguous(),)], groups())
    assert data_digest([(x.bfloat16(),)], groups()) != data_digest([(x,)], groups())
