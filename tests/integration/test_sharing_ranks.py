"""Two processes that share the chains of the callback's probes: against one process, whatever goes wrong on either."""

import json

import numpy as np
import pytest
import torch

from stagewise import open_run
from stagewise.influence.stored_matrices import SampleMatrices, to_store
from stagewise.probes.prober import Prober
from stagewise.sampling.data import ProbeData
from tests.callbacks.runs import SGLD, X
from tests.integration.ranks import run_module
from tests.integration.sharing_ranks import FULL, GROUPS, QUICK, Fixed, Y, run

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

RUNS = [
    "full", "plain", "without", "resumed", "idle", "auto", "fast", "lost", "short", "failing", "unmeasured",
    "other_data", "other_weights", "other_groups",
]  # fmt: skip
TIMES = ("seconds", "llc_seconds")
CLOCKS = (
    "last_probe_seconds", "probe_seconds", "chain_seconds", "curvature_seconds", "training_seconds", "faults",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of the runs: ``one`` of one process, ``ranks`` of two."""
    folder = tmp_path_factory.mktemp("sharing")
    run("full", folder / "one" / "full", ranks=1)
    done = run_module("sharing_ranks", str(folder), *RUNS)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone(base):
    """Folder of a run of one process."""

    def get(name):
        folder = base / "one" / name
        if not folder.exists():
            run(name, folder, ranks=1)
        return folder

    return get


def shared(base, name):
    return base / "ranks" / name


def opened(folder, *, trace=False):
    (store,) = folder.rglob("influence.zarr")
    return open_run(store.parent, trace=trace)


def summary(folder):
    return json.loads(opened(folder).attrs["summary"])


def facts(base, name):
    return [torch.load(shared(base, name) / f"rank{rank}.pt") for rank in (0, 1)]


def check_same(left, right, *, trace=False):
    left, right = opened(left, trace=trace), opened(right, trace=trace)
    assert set(left.variables) == set(right.variables)
    for name in set(left.variables) - set(TIMES):
        np.testing.assert_array_equal(left[name].values, right[name].values, err_msg=str(name))
    for name in set(left.attrs) - {"summary"}:
        assert str(left.attrs[name]) == str(right.attrs[name]), name


@pytest.mark.parametrize(
    ("name", "as_one"),
    [
        ("full", "full"),  # three chains over two; controls, chains of the learning coefficient, tokens, baselines
        ("idle", "idle"),  # one chain over two
        ("auto", "auto"),
        ("lost", "lost"),
        ("other_data", "plain"),  # those of rank zero
        ("other_groups", "plain"),  # found where none are given
    ],
)
def test_ranks_that_share_the_chains_find_bit_for_bit_what_one_finds(base, alone, name, as_one):
    check_same(shared(base, name), alone(as_one), trace=name == "full")


def test_everything_that_a_probe_measures_was_in_the_comparison(base):
    found = opened(shared(base, "full"), trace=True)
    for name in ("loss", "control_difference", "llc_rhat", "token_bif", "position_bif", "tracin", "damped_influence"):
        assert name in found, name
    assert summary(shared(base, "lost"))["lost_samples"] == [{"sample": 3, "step": 4}]


def test_a_run_goes_on_with_another_number_of_ranks(base, alone, tmp_path):
    check_same(shared(base, "resumed"), alone("full"), trace=True)  # one, then two
    checkpoint = next((shared(base, "full") / "checkpoints").glob("*step=3.ckpt"))
    run("full", tmp_path / "back", ranks=1, ckpt=checkpoint)
    check_same(tmp_path / "back", alone("full"), trace=True)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "other_weights"])
def test_training_is_left_as_it_is_on_every_rank(base, name):
    for rank, (probed, bare) in enumerate(zip(facts(base, name), facts(base, "without"), strict=True)):
        assert len(bare["weights"]) == 8
        steps = 3 if name == "resumed" else 0
        for left, right in zip(probed["weights"], bare["weights"][steps:], strict=True):
            assert all(map(torch.equal, left, right)), rank


@pytest.mark.parametrize("name", ["full", "resumed", "lost", "auto", "fast"])
def test_every_rank_can_go_on_from_what_it_knows(base, name):
    first, second = (rank["state"] for rank in facts(base, name))
    for state in (first, second):
        for clock in CLOCKS:
            state["record"].pop(clock)
    left, right = (torch.utils._pytree.tree_flatten(state) for state in (first, second))
    assert left[1] == right[1]
    assert len(first["references"]) >= 1
    for one, other in zip(left[0], right[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_listeners_and_metrics_of_every_rank_get_the_results(base):
    first, second = facts(base, "full")
    assert [step for step, _ in first["heard"]] == [step for step, _ in second["heard"]] == [2, 4, 6, 8]
    for (_, whole), (_, small) in zip(first["heard"], second["heard"], strict=True):
        assert {"loss", "distance", "bif", "token_bif"} <= set(whole) - set(small)
        assert {"group_bif", "group_loss", "signal", "llc", "tracin", "anchor_loss", "shift"} <= set(small) | {"tracin"}
    left, right = (dict(rank["metrics"]) for rank in (first, second))
    for metrics in (left, right):
        metrics.pop("sampler/overhead")
    left.pop("sampler/seconds", None), right.pop("sampler/seconds", None)
    assert left == right
    assert "influence/within/trace" in right


@pytest.mark.parametrize(("name", "kind"), [("failing", "other_rank"), ("unmeasured", "probe")])
def test_a_fault_of_any_rank_in_its_share_or_after_costs_that_probe_on_all(base, alone, name, kind):
    found = summary(shared(base, name))
    assert found["probe_steps"] == [2, 6, 8]
    assert found["probes_failed"] == {kind: 1}
    for rank in facts(base, name):
        assert [step for step, names in rank["heard"] if names is None] == [4]
        assert rank["state"]["record"]["faulty_steps"] == [4]
    run, plain = opened(shared(base, name)), opened(alone("plain"))
    np.testing.assert_array_equal(run["group_loss"], plain["group_loss"].sel(step=[2, 6, 8]))
    # That at step 6 is split against another reference: the one at step 2.
    np.testing.assert_array_equal(run["bif_within"].sel(step=[2, 8]), plain["bif_within"].sel(step=[2, 8]))


def test_a_rank_that_is_short_of_memory_has_all_ranks_halve_their_chunks(base, alone):
    found = summary(shared(base, "short"))
    assert (found["probe_steps"], found["probes_failed"]) == ([2, 4, 6, 8], {})
    np.testing.assert_allclose(
        opened(shared(base, "short"))["group_bif"], opened(alone("plain"))["group_bif"], rtol=1e-3, atol=1e-9
    )


def test_one_engine_is_chosen_for_all_ranks(base, alone):
    engines = {rank["state"]["engine"] for rank in facts(base, "fast")}
    assert len(engines) == 1
    assert engines <= {"batched", "sequential"}
    np.testing.assert_allclose(
        opened(shared(base, "fast"))["group_bif"], opened(alone("plain"))["group_bif"], rtol=1e-3, atol=1e-9
    )


def test_weights_that_differ_between_ranks_are_those_of_rank_zero_for_the_probe_alone(base):
    first, second = (rank["weights"] for rank in facts(base, "other_weights"))
    run = opened(shared(base, "other_weights"))
    module = Fixed()
    data = ProbeData((X[:12], Y[:12]), (X[12:], Y[12:]), GROUPS)
    prober = Prober(module, Fixed.per_sample_loss, data, sgld=SGLD, config=QUICK)
    for step in (2, 4, 6, 8):
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), first[step - 1], strict=True):
                parameter.copy_(value)
        expected, _ = prober.probe(module, step)
        np.testing.assert_array_equal(run["group_bif"].sel(step=step), expected["group_bif"])
        stored = to_store(expected, SampleMatrices.within)
        np.testing.assert_array_equal(run["bif_within"].sel(step=step), stored["bif_within"])
        torch.testing.assert_close(second[step - 1][0], first[step - 1][0] + 0.25)


@pytest.mark.parametrize("name", ["ends", "interrupted", "killed"])
def test_a_rank_that_leaves_lets_no_other_wait(tmp_path, name):
    done = run_module("sharing_ranks", str(tmp_path), name)  # in its time limit
    assert done.returncode != 0
    (store,) = tmp_path.rglob("influence.zarr")
    assert open_run(store.parent)["step"].values.tolist() == [2]
    if name != "killed":
        assert "OtherRankError" in done.stderr
        assert summary(tmp_path)["complete"] is False


def test_the_settings_of_the_comparison_ask_for_everything():
    assert FULL.control_every
    assert FULL.llc.own_sgld(SGLD) is not None
