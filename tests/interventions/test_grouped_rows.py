import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from stagewise.errors import InputError
from stagewise.interventions.grouped_rows import GroupedRows
from stagewise.lm.data import TokenRows

IDS = torch.arange(24).reshape(8, 3)
GROUPS = {"even": torch.arange(8) % 2 == 0, "tokens": torch.rand(8, 2) < 0.5}


class OneByOne(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"input_ids": IDS[index]}


@pytest.mark.parametrize("rows", [TokenRows(IDS), OneByOne()])
def test_each_batch_tells_the_groups_of_its_samples(rows):
    data = GroupedRows(rows, GROUPS)
    assert len(data) == 8
    batch = data.__getitems__([5, 2])
    assert torch.equal(batch["input_ids"], IDS[[5, 2]])
    assert batch["groups"]["even"].tolist() == [False, True]
    assert torch.equal(batch["groups"]["tokens"], GROUPS["tokens"][[5, 2]])
    one = data[2]
    assert torch.equal(one["input_ids"], IDS[2])
    assert one["groups"]["even"].item() is True


def test_it_goes_through_a_data_loader():
    (batch,) = DataLoader(GroupedRows(TokenRows(IDS), GROUPS), 8, collate_fn=lambda rows: rows)
    assert batch["groups"]["even"].tolist() == [True, False] * 4


@pytest.mark.parametrize("mask", [torch.ones(7, dtype=torch.bool), torch.ones(8)])
def test_groups_that_do_not_fit_are_refused(mask):
    with pytest.raises(InputError, match=r"got group 'g' as .*; expected torch.bool with one entry for each of 8"):
        GroupedRows(TokenRows(IDS), {"g": mask})
