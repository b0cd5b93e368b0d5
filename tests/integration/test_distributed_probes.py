"""Probes on two processes leave the run as it is, and find what one process finds at the same weights."""

import json

import numpy as np
import pytest
import torch

import stagewise
from stagewise.influence.stored_matrices import SampleMatrices, to_store
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.sampling.data import ProbeData
from tests.callbacks.interventions import EVEN, Numbered
from tests.callbacks.runs import SGLD, Regression, regression_data
from tests.integration.ranks import run_module
from tests.integration.two_failing_ranks import Normed

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def two_ranks(folder, *, probing):
    """Weights of each rank along the run."""
    folder.mkdir()
    done = run_module("two_probing_ranks", str(folder), str(probing))
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def test_probes_under_ddp_change_no_bit_of_the_run_and_are_those_of_one_process(tmp_path):
    plain, probed = (two_ranks(tmp_path / str(probing), probing=probing) for probing in (False, True))
    for left, right in zip([*plain, probed[0]], [*probed, probed[1]], strict=True):
        assert len(left) == len(right) == 7
        for one, other in zip(left, right, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(plain[0][0]["layer.weight"], plain[0][6]["layer.weight"])

    (store,) = (tmp_path / "True").rglob("influence.zarr")  # one rank writes
    run = stagewise.open_run(store.parent)
    assert run["step"].values.tolist() == [2, 4, 6]
    x, y = regression_data().tensors
    data = ProbeData(observed=(x[:64], y[:64]), sampling=(x, y))
    module = Regression()
    prober = Prober(module, Regression.per_sample_loss, data, sgld=SGLD, config=ProbeConfig())
    for step in (2, 4, 6):
        module.load_state_dict(probed[0][step])
        expected, _ = prober.probe(module, step)
        np.testing.assert_array_equal(run["group_bif"].sel(step=step), expected["group_bif"])
        stored = to_store(expected, SampleMatrices.within)
        np.testing.assert_array_equal(run["bif_within"].sel(step=step), stored["bif_within"])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Folder, weights of both ranks and facts of both ranks, by the rank that fails."""
    found = {}

    def get(failing):
        if failing not in found:
            folder = tmp_path_factory.mktemp(f"failing{failing}")
            done = run_module("two_failing_ranks", str(folder), str(failing))
            assert done.returncode == 0, done.stderr[-3000:]
            weights, facts = (
                [torch.load(folder / f"{name}{rank}.pt") for rank in (0, 1)] for name in ("rank", "facts")
            )
            found[failing] = folder, weights, facts
        return found[failing]

    return get


@pytest.mark.parametrize("failing", [-1, 0, 1])
def test_a_probe_that_fails_on_one_rank_fails_on_all_and_no_rank_waits(ranks, failing):
    _, plain, _ = ranks(-2)
    folder, weights, facts = ranks(failing)
    for left, right in zip(plain, weights, strict=True):
        for one, other in zip(left, right, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
    assert facts[0]["differ"]
    (store,) = folder.rglob("influence.zarr")
    kept = [0, 1, 3, 4, 6] if failing >= 0 else [0, 1, 2, 3, 4, 6]
    assert stagewise.open_run(store.parent)["step"].values.tolist() == kept
    summary = json.loads((store.parent / "summary.json").read_text())
    assert summary["probes_failed"] == {-1: {}, 0: {"probe": 1}, 1: {"other_rank": 1}}[failing]
    # One decision: the window of both ranks.
    assert facts[0]["changes"] == facts[1]["changes"]
    assert len(facts[0]["changes"]) == 2


def test_probes_under_ddp_look_at_the_buffers_of_rank_zero(ranks):
    folder, weights, _ = ranks(-1)
    (store,) = folder.rglob("influence.zarr")
    run = stagewise.open_run(store.parent)
    module = Normed()
    observed, sampling = (tuple(tensor[:num] for tensor in Numbered().tensors) for num in (16, 64))
    groups = {"even": EVEN[:16], "odd": ~EVEN[:16]}
    data = ProbeData(observed=observed, sampling=sampling, groups=groups)
    prober = Prober(module, Normed.per_sample_loss, data, sgld=SGLD, config=ProbeConfig())
    for step in (0, 1, 2, 3, 4, 6):
        module.load_state_dict(weights[0][step])
        expected, _ = prober.probe(module, step)
        np.testing.assert_array_equal(run["group_bif"].sel(step=step), expected["group_bif"])


def test_ranks_agree_on_a_lowered_lr_and_find_what_one_process_finds(tmp_path):
    runs, facts = {}, {}
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        done = run_module("two_lowering_ranks", str(folder), str(devices))
        assert done.returncode == 0, done.stderr[-3000:]
        (store,) = folder.rglob("influence.zarr")
        runs[devices] = stagewise.open_run(store.parent)
        facts[devices] = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(devices)]
    assert facts[2][0] == facts[2][1] == facts[1][0]
    assert [change["step"] for change in facts[2][0]["changes"]] == [30]
    for name in ("lr", "lr_curvature", "group_bif", "shift"):
        np.testing.assert_array_equal(runs[2][name].values, runs[1][name].values, err_msg=name)
