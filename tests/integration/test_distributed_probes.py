"""Probes on two processes leave the run as it is, and find what one process finds at the same weights."""

import numpy as np
import pytest
import torch

import stagewise
from stagewise.influence.stored_matrices import SampleMatrices, to_store
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.sampling.data import ProbeData
from tests.callbacks.runs import SGLD, Regression, regression_data
from tests.integration.ranks import run_module

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
