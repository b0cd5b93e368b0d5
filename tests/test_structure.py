"""What of a batch is structure, what is a column, and what is refused; rebuilt without running anyone's constructor."""

from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

from stagewise.batches import has_columns, joined, num_samples, take, to_device
from stagewise.errors import InputError
from stagewise.structure import holds_data, is_column, leaves, tensors, where

Pair = namedtuple("Pair", ["x", "names"])
ROWS = torch.tensor([4, 1])


@dataclass
class Strict:
    """Validates, as those of anomalib do, and derives something."""

    image: torch.Tensor
    path: list[str] | None = None
    double: torch.Tensor = field(init=False)

    def __post_init__(self):
        if self.image is None or (self.path is not None and len(self.path) != len(self.image)):
            raise ValueError("invalid")
        self.double = 2 * self.image
        self.hidden = self.image + 1


@dataclass(frozen=True, slots=True)
class Frozen:
    x: torch.Tensor
    temperature: float = 0.5


def test_columns_of_strings_numbers_and_arrays_are_cut_with_the_tensors():
    batch = {
        "x": torch.arange(6),
        "names": list("abcdef"),
        "sizes": (1, 2, 3, 4, 5, 6),
        "array": np.arange(12).reshape(6, 2),
        "scalars": [torch.tensor(i) for i in range(6)],
        "range": range(6),
        "why": "kept",
        "rate": 0.5,
        "weight": None,
        "none": [],
    }
    part = take(batch, ROWS)
    assert part["x"].tolist() == [4, 1]
    assert part["names"] == ["e", "b"]
    assert part["sizes"] == (5, 2)
    assert part["array"].tolist() == [[8, 9], [2, 3]]
    assert [int(scalar) for scalar in part["scalars"]] == [4, 1]
    assert part["range"] == [4, 1]
    assert (part["why"], part["rate"], part["weight"], part["none"]) == ("kept", 0.5, None, [])
    assert take(batch, slice(1, 3))["names"] == ["b", "c"]
    assert has_columns(batch)
    assert not has_columns({"x": torch.arange(6), "why": "kept"})


def test_a_list_of_tensors_is_structure_also_where_it_is_as_long_as_the_batch():
    x, y = torch.arange(2), torch.tensor([[1, 2], [3, 4]])
    first, second = take([x, y], torch.tensor([1]))
    assert first.tolist() == [1]
    assert second.tolist() == [[3, 4]]
    assert not is_column([x, y])


@pytest.mark.parametrize("kind", [dict, OrderedDict, lambda held: defaultdict(list, held), BatchEncoding])
def test_mappings_keep_their_class(kind):
    batch = kind({"x": torch.arange(6), "names": list("abcdef")})
    part = take(batch, ROWS)
    assert type(part) is type(batch)
    assert part["x"].tolist() == [4, 1]
    assert part["names"] == ["e", "b"]
    assert batch["x"].tolist() == list(range(6))


def test_what_a_tokenizer_keeps_of_all_samples_is_not_kept_for_some():
    batch = BatchEncoding({"x": torch.arange(6)})
    batch._encodings = list(range(6))
    assert take(batch, ROWS)._encodings is None
    assert len(batch._encodings) == 6


def test_named_tuples_and_dataclasses_are_rebuilt_without_their_checks():
    pair = take(Pair(torch.arange(6), list("abcdef")), ROWS)
    assert isinstance(pair, Pair)
    assert pair.names == ["e", "b"]
    strict = Strict(torch.arange(6.0), list("abcdef"))
    part = take(strict, ROWS)
    assert isinstance(part, Strict)
    assert (part.image.tolist(), part.path, part.double.tolist()) == ([4, 1], ["e", "b"], [8, 2])
    assert part.hidden.tolist() == [5, 2]
    assert strict.image.tolist() == list(range(6))
    frozen = take(Frozen(torch.arange(6)), ROWS)
    assert (type(frozen), frozen.x.tolist(), frozen.temperature) == (Frozen, [4, 1], 0.5)
    assert to_device(strict, torch.device("meta")).double.device.type == "meta"


def test_sparse_tensors_are_cut():
    dense = torch.eye(6)
    assert torch.equal(take(dense.to_sparse(), ROWS).to_dense(), dense[ROWS])
    assert torch.equal(take(dense.to_sparse(), slice(1, 3)).to_dense(), dense[1:3])


class Graphs:
    """As a batch of PyTorch Geometric: tensors of nodes, and a length in graphs."""

    def __init__(self):
        self.x, self.batch = torch.zeros(20, 3), torch.zeros(20, dtype=torch.int64)

    def __len__(self):
        return 6


class Hidden:
    """No length, but tensors two attributes deep."""

    def __init__(self):
        self.inner = {"x": [torch.zeros(20, 3)]}


PACKED = torch.nn.utils.rnn.pack_sequence([torch.zeros(3), torch.zeros(2)])
RAGGED = [torch.zeros(3), torch.zeros(2), torch.zeros(5)]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((Graphs(), torch.zeros(6)), r"Graphs at batch\[0\]"),
        ({"graph": Hidden(), "y": torch.zeros(6)}, r"Hidden at batch\['graph'\]"),
        ([PACKED, torch.zeros(2)], r"PackedSequence at batch\[0\]"),
        ((RAGGED, torch.zeros(3)), r"leading sizes \[2, 3, 5\].*batch\[0\]\[1\] \[2\]"),
        ({"x": torch.zeros(8, 2), "names": ["a"] * 96}, r"leading sizes \[8, 96\].*batch\['names'\] 96 entries"),
        ({"x": torch.zeros(8, 2), "boxes": [[1, 2], [3]]}, r"leading sizes"),
        ((torch.nested.nested_tensor(RAGGED),), r"Tensor at batch\[0\]"),
        ([[torch.zeros(3), torch.zeros(3)], torch.zeros(2)], r"leading sizes \[2, 3\]"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_name_with_the_way_that_works(batch, words):
    with pytest.raises(InputError, match=words) as caught:
        num_samples(batch)
    assert "stagewise.CollatedLoss(dataset" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        take(batch, slice(0, 1))


def test_objects_without_data_belong_to_the_whole_batch():
    class Settings:
        def __init__(self):
            self.rate, self.names = 0.1, ["a"]

    settings = Settings()
    assert not holds_data(settings)
    assert take({"x": torch.arange(6), "settings": settings, "f": len}, ROWS)["settings"] is settings


def test_names_of_columns_as_pandas_has_them_and_lists_of_none_belong_to_the_whole_batch():
    """As in batches of neuralforecast."""
    pandas = pytest.importorskip("pandas")
    batch = {"temporal": torch.zeros(6, 4, 3), "cols": pandas.Index(["y", "a", "b"]), "static": (None, None)}
    part = take(batch, ROWS)
    assert part["temporal"].shape == (2, 4, 3)
    assert part["cols"] is batch["cols"]
    assert part["static"] == (None, None)
    with pytest.raises(InputError, match=r"DataFrame at batch\['table'\]"):
        num_samples({"x": torch.zeros(6), "table": pandas.DataFrame({"a": range(6)})})


def test_batch_of_columns_alone_has_their_length():
    assert num_samples({"text": ["a", "b", "c"], "label": (0, 1, 1)}) == 3


def test_places_are_told_as_python_writes_them():
    places = [where(path) for path, _ in leaves({"x": (torch.zeros(2), Frozen(torch.zeros(2)))})]
    assert places == ["batch['x'][0]", "batch['x'][1].x", "batch['x'][1].temperature"]
    assert len(tensors({"x": torch.zeros(2), "y": [torch.tensor(1.0), torch.tensor(2.0)]})) == 3


def test_batches_are_joined_sample_after_sample():
    first = {"x": torch.arange(3), "names": ["a", "b", "c"], "array": np.zeros((3, 1)), "rate": 1}
    second = {"x": torch.arange(2), "names": ["d", "e"], "array": np.ones((2, 1)), "rate": 1}
    whole = joined([first, second])
    assert whole["x"].tolist() == [0, 1, 2, 0, 1]
    assert whole["names"] == list("abcde")
    assert whole["array"].ravel().tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(InputError, match=r"one shape of sample; give observed= and sampling="):
        joined([torch.zeros(2, 3), torch.zeros(2, 4)])
    with pytest.raises(InputError, match="one structure"):
        joined([{"x": torch.zeros(2)}, {"y": torch.zeros(2)}])
