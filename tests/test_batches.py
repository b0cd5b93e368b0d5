import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from stagewise.batches import as_batch, first_samples, num_samples, take
from stagewise.errors import InputError

NESTED = {"x": torch.arange(12).view(6, 2), "more": (torch.arange(6), {"y": torch.arange(6) * 10}), "name": "kept"}


def test_num_samples_of_nested_batches():
    assert num_samples(NESTED) == 6
    assert num_samples(torch.zeros(4, 2)) == 4


@pytest.mark.parametrize("batch", [{"x": torch.zeros(3), "y": torch.zeros(4)}, {"x": "no tensor"}])
def test_num_samples_refuses_what_has_none(batch):
    with pytest.raises(InputError, match="expected"):
        num_samples(batch)


def test_take_keeps_structure():
    part = take(NESTED, torch.tensor([4, 1]))
    assert part["x"].tolist() == [[8, 9], [2, 3]]
    assert part["more"][1]["y"].tolist() == [40, 10]
    assert part["name"] == "kept"


def test_first_samples_of_a_data_set_or_a_plain_list():
    x, y = first_samples(TensorDataset(torch.arange(5), torch.arange(5) * 2), limit=3)
    assert x.tolist() == [0, 1, 2]
    assert y.tolist() == [0, 2, 4]
    assert first_samples([1, 2, 3], limit=9).tolist() == [1, 2, 3]


def test_data_set_that_answers_for_many_samples_at_once_is_asked_once():
    class Rows(Dataset):
        def __len__(self):
            return 9

        def __getitems__(self, indices):
            return torch.tensor(indices) * 10

    assert first_samples(Rows(), limit=3, collate_fn=lambda rows: rows).tolist() == [0, 10, 20]


def test_collate_function_is_used():
    assert as_batch(TensorDataset(torch.arange(4)), len) == 4


def test_batch_is_taken_as_it_is():
    assert as_batch(NESTED) is NESTED


class Endless(IterableDataset):
    def __iter__(self):
        yield 0

    def __len__(self):
        return 1


class Empty(Dataset):
    def __len__(self):
        return 0


@pytest.mark.parametrize("data", [Endless(), Empty(), torch.zeros(0, 3)])
def test_unusable_data_is_refused(data):
    with pytest.raises(InputError, match="expected"):
        as_batch(data)
