"""Live windows and reweighting where two processes hold the weights in shards: against one that holds them whole."""

import json

import numpy as np
import pytest

from stagewise import open_run
from tests.integration.ranks import run_module
from tests.integration.sharded_windows import run

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    shards, whole = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("whole")
    done = run_module("sharded_windows", str(shards))
    assert done.returncode == 0, done.stderr[-3000:]
    run(whole, ranks=1)
    return shards, whole


def facts(folder, rank):
    return json.loads((folder / f"rank{rank}.json").read_text())


def test_a_window_opens_and_closes_at_the_same_steps_on_every_rank_and_without_shards(folders):
    shards, whole = folders
    changes = facts(whole, 0)["changes"]
    assert [inside for _, inside in changes] == [True, False]
    assert facts(shards, 0)["changes"] == facts(shards, 1)["changes"] == changes


def test_ranks_share_the_reweighted_order_of_one_process(folders):
    shards, whole = folders
    first, second = (facts(shards, rank)["batches"] for rank in (0, 1))
    for (step, every), (_, left), (_, right) in zip(facts(whole, 0)["batches"], first, second, strict=True):
        assert (every[0::2], every[1::2]) == (left, right), step
    (opened, _), (closed, _) = facts(whole, 0)["changes"]
    of_group = {step: sum(number % 4 == 0 for number in every) for step, every in facts(whole, 0)["batches"]}
    # A quarter of the samples at weight 4: four in seven are expected, a quarter without weights.
    assert np.mean([of_group[step] for step in range(opened, closed)]) > 3 * 8 / 7


def test_probes_inside_the_window_are_those_of_whole_weights(folders):
    left, right = (open_run(next(folder.rglob("influence.zarr")).parent) for folder in folders)
    assert left["step"].values.tolist() == right["step"].values.tolist()
    for name in ("group_loss", "group_bif", "llc"):
        scale = float(np.nanmax(np.abs(right[name].values)))
        np.testing.assert_allclose(left[name].values / scale, right[name].values / scale, atol=1e-3, err_msg=name)
