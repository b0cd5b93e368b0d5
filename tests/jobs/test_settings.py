import enum
import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stagewise.errors import InputError
from stagewise.jobs.settings import check_same_settings, plain_settings


class Mode(enum.Enum):
    A = 1
    B = object()


class Kind(enum.StrEnum):
    one = "first"


class Tool:
    def __init__(self, size):
        self.size, self.mode = size, Mode.A


@dataclass(frozen=True)
class Settings:
    model: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.5


LINEAR = "Linear(in_features=2, out_features=3, bias=True)"
HELD = {
    "a member": (Mode.B, "B"),
    "a member that is text": (Kind.one, "first"),
    "a path": (Path("a/b"), "a/b"),
    "a type": (torch.bfloat16, "torch.bfloat16"),
    "a device": (torch.device("cpu"), "cpu"),
    "a class": (Tool, f"{__name__}.Tool"),
    "a function": (torch.nn.functional.relu, "torch.nn.functional.relu"),
    "an object": (Tool(3), {"class": f"{__name__}.Tool", "size": 3, "mode": "A"}),
    "a function with arguments": (
        partial(Tool, size=3),
        {"function": f"{__name__}.Tool", "args": [], "keywords": {"size": 3}},
    ),
    "a set": ({"b", "a"}, ["a", "b"]),
    "a tuple": ((1, (2.5, None)), [1, [2.5, None]]),
    "keys that are no text": ({Mode.A: 1, 2: True}, {"A": 1, "2": True}),
    "numbers of numpy": (np.float32(0.5), 0.5),
    "a tensor": (torch.arange(3), [0, 1, 2]),
    "no number": (float("inf"), "inf"),
}


@pytest.mark.parametrize("case", HELD)
def test_whatever_arguments_hold_is_plain_and_compares_with_what_was_written(tmp_path, case):
    value, expected = HELD[case]
    config = Settings({"init_args": {"it": value}})
    plain = plain_settings(config)
    assert plain == {"model": {"init_args": {"it": expected}}, "rate": 0.5}
    for _ in range(2):
        check_same_settings(tmp_path, plain_settings(config))
    assert json.loads((tmp_path / "settings.json").read_text()) == plain
    with pytest.raises(InputError, match=r"got rate 0.25 \(was 0.5\)"):
        check_same_settings(tmp_path, plain_settings(replace(config, rate=0.25)))


def test_two_objects_of_the_same_attributes_are_the_same_setting_and_others_are_not():
    same, other = (plain_settings(Settings({"it": Tool(size)})) for size in (3, 4))
    assert same == plain_settings(Settings({"it": Tool(3)})) != other
