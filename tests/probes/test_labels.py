"""Integer labels of pairs and mappings become groups, and nothing else does."""

import numpy as np
import pytest
import torch

import stagewise
from stagewise.checks.group_names import check_group_names
from stagewise.probes.labels import label_groups, sample_labels
from tests.callbacks.runs import SGLD

X = torch.zeros(6, 3)
Y = torch.tensor([4, 0, 4, -1, 0, 4])


@pytest.mark.parametrize(
    "batch",
    [
        (X, Y),
        [X, Y.int()],
        (X, Y.numpy()),
        (X, Y.tolist()),
        {"input_ids": X, "labels": Y},
        {"x": X, "label": Y.to(torch.int8)},
        {"x": X, "y": Y},
    ],
)
def test_each_label_is_a_group_of_its_samples(batch):
    found = label_groups(batch)
    check_group_names(found)
    assert {name: mask.nonzero().flatten().tolist() for name, mask in found.items()} == {
        "label -1": [3],
        "label 0": [1, 4],
        "label 4": [0, 2, 5],
    }
    assert list(found) == ["label -1", "label 0", "label 4"]
    assert sample_labels(batch).tolist() == Y.tolist()


@pytest.mark.parametrize(
    "batch",
    [
        X,
        (X,),
        (X, Y, Y),
        (X, Y.float()),
        (X, Y == 0),
        (X, Y[:, None]),
        (X, Y[:5]),
        (X, X),
        {"x": X, "labels": X.long()},
        {"x": X, "kind": Y},
        (X, [0.5] * 6),
        (X, np.array(["a"] * 6)),
        [1, 2],
        torch.arange(6),
        (torch.zeros(6).to_sparse(), Y.to_sparse()),
    ],
)
def test_what_is_no_label_of_each_sample_makes_no_group(batch):
    assert label_groups(batch) == {}


def test_two_to_twenty_labels_become_groups_and_ignored_ones_do_not():
    rows = torch.arange(40)
    assert [len(label_groups((rows, rows % count))) for count in (1, 2, 20, 21)] == [0, 2, 20, 0]
    found = label_groups((rows, torch.where(rows < 5, -100, rows % 2)))
    assert list(found) == ["label 0", "label 1"]
    assert not found["label 0"][:5].any()


def test_influence_at_one_checkpoint_is_between_labels_unless_there_are_to_be_none():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    batch = (torch.randn(12, 3), torch.arange(12) % 2)

    def loss(module, batch):
        return torch.nn.functional.cross_entropy(module(batch[0]), batch[1], reduction="none")

    def names(**given):
        probe = stagewise.ProbeConfig(check_curvature=False)
        with pytest.warns(UserWarning, match="flagged"):
            return stagewise.bif(module, batch, loss_fn=loss, sgld=SGLD, probe=probe, **given)["group"].values.tolist()

    assert names() == ["label 0", "label 1"]
    assert names(groups={}) == ["all"]
    assert names(groups={"few": torch.arange(12) < 3}) == ["few"]
