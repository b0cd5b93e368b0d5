import numpy as np
import pytest
import xarray as xr

from stagewise.influence.bif import bif
from stagewise.influence.chain_counts import chain_counts, equilibrated_probes, interval_factor
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups

SAMPLES = 6
GROUPS = Groups({"a": np.arange(SAMPLES) < 3, "b": np.arange(SAMPLES) >= 3}, np.ones(SAMPLES, dtype=bool))


def features(step, chains, *, equilibrated=None):
    generator = np.random.default_rng(step)
    draws = generator.normal(size=(len(chains), 30, SAMPLES)) + 2 * generator.normal(size=(len(chains), 30, 1))
    return GroupDraws(step, chains, draws, GROUPS.sums(draws), equilibrated)


def probe(current, reference):
    result = bif(current, reference, GROUPS)
    result.attrs["sgld"] = {"num_chains": 4}
    result["chains_dropped"] = 4 - len(current.chains)
    return result


def test_chains_dropped_by_the_reference_do_not_count():
    got = probe(features(20, (0, 1, 2, 3)), features(10, (0, 3)))
    assert int(got["chains_common"]) == int(chain_counts(got)) == 2
    # Student's t with one degree of freedom, of a table; 3.18 would be that of four chains.
    assert float(interval_factor(got)) == pytest.approx(12.706, abs=1e-3)
    assert float(interval_factor(probe(features(20, (0, 1, 2, 3)), None))) == pytest.approx(3.182, abs=1e-3)


def test_results_of_earlier_versions_count_the_chains_not_dropped_by_the_probe():
    old = probe(features(20, (0, 1, 2)), None).drop_vars(["chains_common", "reference_equilibrated"])
    assert int(chain_counts(old)) == 3
    assert bool(equilibrated_probes(old))
    # A run that was resumed by this version has both kinds of probes.
    mixed = xr.Dataset(
        {"chains_common": ("step", [np.nan, 2.0]), "chains_dropped": ("step", [1.0, 0.0])},
        attrs={"sgld": {"num_chains": 4}},
    )
    assert chain_counts(mixed).values.tolist() == [3.0, 2.0]


@pytest.mark.parametrize(
    ("own", "past", "told"),
    [(True, True, True), (True, None, True), (None, None, True), (False, True, False), (True, False, False)],
)
def test_no_z_score_or_interval_if_the_probe_or_its_reference_is_out_of_equilibrium(own, past, told):
    current, reference = (
        features(20, (0, 1, 2), equilibrated=own), features(10, (0, 1, 2), equilibrated=past),
    )  # fmt: skip
    got = probe(current, reference)
    if own is not None:
        got["equilibrated"] = int(own)
    assert np.isfinite(got["group_bif_z"]).values.all() == told
    assert np.isfinite(got["z_median"]) == told
    assert np.isfinite(interval_factor(got)) == told
    assert bool(equilibrated_probes(got)) == told
    # The estimate and its error over chains stay.
    assert np.isfinite(got["group_bif"]).all()
    assert (got["group_bif_se"].sel(part="within") > 0).all()


def test_equilibrium_survives_checkpoints_and_the_selection_of_chains():
    for told in (True, False, None):
        kept = features(1, (0, 1, 2), equilibrated=told).only((0, 2))
        assert GroupDraws.from_state_dict(kept.state_dict()).equilibrated is told
    old = features(1, (0, 1)).state_dict()
    del old["equilibrated"]
    assert GroupDraws.from_state_dict(old).equilibrated is None
