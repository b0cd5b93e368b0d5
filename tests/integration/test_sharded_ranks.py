"""Two processes that hold the weights of a run in shards: against one that holds them whole, with the same noise."""

import json

import numpy as np
import pytest
import torch

from stagewise import open_run
from tests.integration.ranks import run_module
from tests.integration.sharded_ranks import run

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

RUNS = ["without", "full", "resumed", "adam", "before", "within", "after"]
TIMES = ("seconds", "llc_seconds")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    done = run_module("sharded_ranks", str(folder), *RUNS)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def opened(folder, *, trace=False):
    (store,) = folder.rglob("influence.zarr")
    return open_run(store.parent, trace=trace)


def summary(folder):
    return json.loads(opened(folder).attrs["summary"])


def facts(base, name):
    return [torch.load(base / name / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", ["full", "adam"])
def test_results_are_those_of_whole_weights_with_the_same_noise(base, tmp_path, name):
    run(name, tmp_path / name, ranks=1)
    whole, shards = opened(tmp_path / name, trace=name == "full"), opened(base / name, trace=name == "full")
    assert set(whole.variables) == set(shards.variables)
    for variable in set(whole.variables) - set(TIMES):
        left, right = shards[variable].values, whole[variable].values
        if left.dtype.kind == "f":
            scale = float(np.nanmax(np.abs(right), initial=0)) or 1.0
            np.testing.assert_allclose(left / scale, right / scale, rtol=2e-3, atol=2e-4, err_msg=str(variable))
        else:
            np.testing.assert_array_equal(left, right, err_msg=str(variable))
    if name == "full":
        # Draws themselves, to float rounding.
        np.testing.assert_allclose(shards["loss"].values, whole["loss"].values, rtol=1e-4, atol=1e-5)
        for found in ("control_difference", "llc_rhat", "token_bif", "position_bif", "tracin", "graddot"):
            assert found in shards, found


def test_a_run_goes_on_from_a_checkpoint_of_shards_as_if_it_had_not_ended(base):
    left, right = opened(base / "resumed", trace=True), opened(base / "full", trace=True)
    assert right["step"].values.tolist() == left["step"].values.tolist() == [2, 4, 6]
    for variable in set(right.variables) - set(TIMES):
        np.testing.assert_array_equal(left[variable].values, right[variable].values, err_msg=str(variable))


@pytest.mark.parametrize("name", [name for name in RUNS if name != "without"])
def test_training_is_left_bit_for_bit_on_every_rank(base, name):
    for probed, bare in zip(facts(base, name), facts(base, "without"), strict=True):
        assert len(bare["weights"]) == 6
        begun = 3 if name == "resumed" else 0
        for left, right in zip(probed["weights"], bare["weights"][begun:], strict=True):
            assert all(map(torch.equal, left, right))


def test_ranks_hold_different_parts_of_the_weights(base):
    first, second = facts(base, "without")
    assert [len(part) for part in first["weights"][0]] == [3, 3, 2, 2]
    assert [len(part) for part in second["weights"][0]] == [2, 2, 1, 1]


@pytest.mark.parametrize("name", ["before", "within", "after"])
def test_a_loss_that_raises_on_one_rank_costs_that_probe_and_no_rank_waits(base, name):
    found = summary(base / name)
    assert (found["probe_steps"], found["probes_failed"]) == ([2, 6], {"other_rank": 1})
    for rank in facts(base, name):
        assert rank["heard"] == [(2, True), (4, False), (6, True)]


@pytest.mark.parametrize("name", ["interrupted", "killed"])
def test_a_rank_that_leaves_lets_no_other_wait(tmp_path, name):
    done = run_module("sharded_ranks", str(tmp_path), name)  # in its time limit
    assert done.returncode != 0
    (store,) = tmp_path.rglob("influence.zarr")
    assert open_run(store.parent)["step"].values.tolist() == [2]
