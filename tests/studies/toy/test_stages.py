import numpy as np
import pytest
import xarray as xr

from stagewise.studies.toy.stages import (
    BETWEEN,
    CHAINS,
    LOSSES,
    NORM,
    branch_peaks,
    detections,
    method_curves,
    pair_flips,
    relation_flips,
    signals,
)
from stagewise.toy.hierarchy import Hierarchy
from tests.studies.toy.small import TREE

HIERARCHY = Hierarchy(TREE)  # dog and cat are siblings, granite is their cousin
STEPS = np.unique(np.rint(np.geomspace(10, 1000, 80)).astype(int))
NUM = len(STEPS)


def bump(at, width=0.2):
    return np.exp(-((np.log(STEPS / at) / width) ** 2))


@pytest.fixture
def curves():
    """Siblings flip from helpful to harmful at step 100; nothing else does."""
    names = np.array(HIERARCHY.items, dtype=object)
    bif = np.zeros((NUM, 3, 3))
    bif[:, 0, 1] = bif[:, 1, 0] = np.log(STEPS / 100)
    bif[:, 0, 2] = bif[:, 2, 0] = bif[:, 1, 2] = bif[:, 2, 1] = -1 - bump(200)
    pairs = ("step", "item", "item_j")
    reference = np.concatenate([STEPS[:1], STEPS[:-1]])
    loss = np.zeros((1001, 3))
    at = np.arange(1001)
    loss[:] = (1 / (1 + (np.maximum(at, 1) / 50.0) ** 8) + 1 / (1 + (np.maximum(at, 1) / 400.0) ** 8))[:, None]
    chains = xr.Dataset(
        {
            "bif": (pairs, bif),
            "bif_se": (pairs, np.full_like(bif, 0.05)),
            "relation_bif": (("step", "relation"), np.stack([bif[:, 0, 1], bif[:, 0, 2]], axis=1)),
            "relation_bif_se": (("step", "relation"), np.full((NUM, 2), 0.05)),
            "signal": ("step", np.where(STEPS[0] < STEPS, bump(50) + bump(400), np.nan)),
            "signal_se": ("step", np.full(NUM, 1e-3)),
            "reference_step": ("step", reference),
        },
        coords={
            "step": STEPS,
            "item": names,
            "item_j": names,
            "relation": np.array(["sibling", "cousin"], dtype=object),
        },
        attrs={"num_chains": 8},
    )
    exact = xr.Dataset(
        {
            "gaussian": (("gaussian_step", "item", "item_j"), bif[::2]),
            "unrolled": (pairs, -bif),
            "leave_one_out": (pairs, bif * 1e-6),
            "horizon_effect": (("horizon", *pairs), np.stack([bif, 2 * bif])),
            "loss": (("training_step", "item"), loss),
        },
        coords={"step": STEPS, "gaussian_step": STEPS[::2], "horizon": [20, 50]},
        attrs={
            "transitions": [50, 400],
            "half_times": [53.0, 900.0],
            "branching_times": {"thing": 250.0, "animal": 1000.0},
        },
    )
    return chains, exact


def test_flips_are_found_by_each_method_where_they_are(curves):
    found = pair_flips(*curves, HIERARCHY, horizon=50)
    siblings = {item.method: item for item in found if item.relation == "sibling"}
    assert siblings[CHAINS].from_helpful.step == pytest.approx(100, rel=0.02)
    assert siblings["horizon"].from_helpful.step == pytest.approx(100, rel=0.02)
    assert siblings["full leave-one-out"].from_helpful.step == pytest.approx(100, rel=0.02)
    # The other way round is no flip from helpful to harmful.
    assert len(siblings["unrolled"].flips) == 1
    assert siblings["unrolled"].from_helpful is None
    assert all(not item.flips for item in found if item.relation == "cousin")
    assert {item.relation for item in found} == {"sibling", "cousin"}


def test_errors_over_few_chains_are_read_by_students_t(curves):
    chains, exact = curves
    chains.attrs["num_chains"] = 3
    chains["bif_se"] = chains["bif_se"] * 2.5
    assert pair_flips(chains, exact, HIERARCHY, horizon=50)[0].from_helpful is None
    chains.attrs["num_chains"] = 100
    assert pair_flips(chains, exact, HIERARCHY, horizon=50)[0].from_helpful is not None


def test_methods_without_chains_have_a_floor_and_no_degrees_of_freedom(curves):
    steps, values, errors, degrees = method_curves(*curves, "horizon", horizon=20)
    assert degrees is None
    np.testing.assert_array_equal(values, curves[0]["bif"].values)
    assert 3 * errors.max() == pytest.approx(1e-3 * np.abs(values).max())
    assert len(method_curves(*curves, "local Gaussian", horizon=20)[0]) == (NUM + 1) // 2
    assert len(steps) == NUM


def test_relations_flip_by_their_means(curves):
    found = relation_flips(curves[0])
    assert [round(flip.step) for flip in found["sibling"]] == [100]
    assert found["cousin"] == ()


def test_signals_are_the_callbacks_the_losses_and_the_norm(curves):
    chains, exact = curves
    found = signals(chains, exact)
    np.testing.assert_array_equal(found[BETWEEN], chains["signal"].values)
    assert np.isnan(found[LOSSES][0])
    loss = exact["loss"].values
    for row in (5, 20):
        shift = loss[STEPS[row]] - loss[STEPS[row - 1]]
        assert found[LOSSES][row] == pytest.approx(np.sqrt((shift**2).sum()) / 2)
        bif = chains["bif"].values[row]
        assert found[NORM][row] == pytest.approx(np.sqrt((bif**2).sum() - (np.diag(bif) ** 2).sum()))


def test_detections_are_matched_with_the_true_transitions(curves):
    by_signal = {detection.signal: detection for detection in detections(*curves, min_prominence=0.05)}
    assert by_signal[BETWEEN].match.precision == by_signal[BETWEEN].match.recall == 1
    assert by_signal[LOSSES].match.recall == 1
    assert by_signal[BETWEEN].half_time_match.recall == 0.5
    assert by_signal[NORM].match.recall == 0


def test_branches_are_set_beside_the_peak_of_harm_across_them(curves):
    animal, thing = sorted(branch_peaks(*curves, HIERARCHY), key=lambda item: item.branch)
    assert (animal.branch, animal.peak_step, animal.ratio) == ("animal", STEPS[-1], STEPS[-1] / 1000)
    # Items of the two sides of the root only help each other.
    assert thing.peak_step is None
    assert np.isnan(thing.ratio)
