"""Two processes see disjoint shards of one reweighted order."""

import json

import pytest

from tests.callbacks.interventions import intervention, loader, train
from tests.integration.ranks import run_module

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def two_ranks(folder, *, use_distributed_sampler):
    return run_module("two_ranks", str(folder), str(use_distributed_sampler))


def test_two_ranks_share_the_order_of_one_process(tmp_path):
    done = two_ranks(tmp_path, use_distributed_sampler=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert len(list(tmp_path.rglob("intervention.json"))) == 1
    _, one = train(tmp_path / "one", [intervention()], loader(8))
    for (step, whole), (_, first), (_, second) in zip(one.batches, *ranks, strict=True):
        assert whole[0::2] == first, step
        assert whole[1::2] == second, step


def test_a_distributed_sampler_left_on_is_refused_in_one_line(tmp_path):
    done = two_ranks(tmp_path, use_distributed_sampler=True)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "InputError: got use_distributed_sampler=True" in line]
    assert lines
    assert "with 2 processes; expected False" in lines[0]
    assert not list(tmp_path.glob("rank*.json"))
