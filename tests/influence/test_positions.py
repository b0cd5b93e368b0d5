from itertools import pairwise

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.position_influence import position_influence
from stagewise.influence.sign import SIGN
from stagewise.influence.split import PARTS, Centering, split

SAMPLES, TOKENS, CHAINS = 4, 6, 4
RNG = np.random.default_rng(0)
PRESENT = RNG.random((SAMPLES, TOKENS)) < 0.9
MASKS = {"a": RNG.random((SAMPLES, TOKENS)) < 0.5, "rows": np.arange(SAMPLES) > 1}
GROUPS = Groups(MASKS, PRESENT)
EDGES = [0, 1, 4, 6]


def losses(seed, chains=CHAINS, shift=0.0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(chains, 8, 1, 1)) + 0.5 * generator.normal(size=(chains, 1, SAMPLES, TOKENS))
    loss = generator.normal(size=(chains, 8, SAMPLES, TOKENS)) + common + shift
    return np.where(PRESENT, loss, 0.0).astype(dtype)


def loop(current, reference, centering):
    """``[part, group, bin]``: plain loop over losses (i, k) in the group and (j, l) in the bin, i and j different."""
    flat = [None if loss is None else loss.reshape(*loss.shape[:2], -1) for loss in (current, reference)]
    parts = split(*flat, centering=centering).parts()
    result = np.zeros((len(PARTS), 2, 3))
    for part, name in enumerate(PARTS):
        for row, column in np.ndindex(2, 3):
            pairs = []
            for i, k in np.argwhere(GROUPS.masks[row]):
                for j, m in np.argwhere(PRESENT):
                    if i != j and EDGES[column] <= m < EDGES[column + 1]:
                        pairs.append(parts[name][i * TOKENS + k, j * TOKENS + m])
            result[part, row, column] = -np.mean(pairs)
    return result


def correlation_loop(current, reference, centering):
    """The same of the sums of group and bin in each sequence, over the total deviations."""
    bins = [PRESENT & (np.arange(TOKENS) >= start) & (np.arange(TOKENS) < stop) for start, stop in pairwise(EDGES)]
    masks = [*GROUPS.masks, *bins]

    def sums(loss):
        return (
            None
            if loss is None
            else np.stack([(loss * mask).sum(-1) for mask in masks], 2).reshape(*loss.shape[:2], -1)
        )

    parts = split(sums(current), sums(reference), centering=centering).parts()
    deviation = np.sqrt(np.diag(parts["total"]))
    result = np.zeros((len(PARTS), 2, 3))
    for part, name in enumerate(PARTS):
        for row, column in np.ndindex(2, 3):
            pairs = []
            for i, j in np.ndindex(SAMPLES, SAMPLES):
                left, right = row * SAMPLES + i, (2 + column) * SAMPLES + j
                if i != j and masks[row][i].any() and masks[2 + column][j].any():
                    pairs.append(parts[name][left, right] / deviation[left] / deviation[right])
            result[part, row, column] = -np.mean(pairs)
    return result


@pytest.mark.parametrize("centering", list(Centering))
@pytest.mark.parametrize("past", [None, losses(2, shift=1.0)])
def test_position_influence_and_its_jackknife_equal_loops(centering, past):
    current = losses(1)
    got = position_influence(current, GROUPS, PRESENT, EDGES, reference=past, centering=centering)
    for name, plain in (("position_bif", loop), ("position_bif_correlation", correlation_loop)):
        assert got[name].dims == ("part", "group", "position")
        np.testing.assert_allclose(got[name], plain(current, past, centering), atol=1e-12)
        left_out = []
        for skip in range(CHAINS):
            rows = [row for row in range(CHAINS) if row != skip]
            left_out.append(plain(current[rows], None if past is None else past[rows], centering))
        error = np.sqrt(3 / 4 * np.square(np.array(left_out) - np.mean(left_out, axis=0)).sum(axis=0))
        np.testing.assert_allclose(got[f"{name}_se"], error, atol=1e-12)
    known = got["position_bif_se"].values > 1e-12
    want = (got["position_bif"] / got["position_bif_se"]).values[known]
    np.testing.assert_allclose(got["position_bif_z"].values[known], want)


def test_bins_and_units_are_named():
    got = position_influence(losses(1, dtype=np.float32), GROUPS, PRESENT, 3)
    assert got["position"].values.tolist() == [0, 2, 4]
    assert got["position_end"].values.tolist() == [2, 4, 6]
    assert got["group"].values.tolist() == ["a", "rows"]
    assert got["position_bif"].attrs == {"sign": SIGN, "units": "nats^2"}
    assert got["position_bif_correlation_se"].attrs == {"sign": SIGN, "units": "1"}
    assert got.attrs["sign"] == SIGN


def test_a_single_bin_equals_the_influence_on_a_group_of_everything():
    everything = Groups({**MASKS, "all": PRESENT}, PRESENT)
    current = losses(1)
    features = GroupDraws(5, tuple(range(CHAINS)), current.sum(-1), everything.sums(current))
    want = bif(features, None, everything)
    got = position_influence(current, GROUPS, PRESENT, 1)
    for name in ("bif", "bif_se", "bif_correlation", "bif_correlation_se"):
        np.testing.assert_allclose(
            got[f"position_{name}"].values[..., 0], want[f"group_{name}"].sel(group_j="all", group=["a", "rows"]).values
        )


def test_positions_do_not_change_the_results_of_groups():
    positions = Positions(GROUPS, PRESENT, EDGES)
    current, past = losses(1), losses(2, shift=1.0)
    joint, alone = (
        [
            GroupDraws(step, tuple(range(CHAINS)), loss.sum(-1), groups.sums(loss))
            for step, loss in ((20, current), (9, past))
        ]
        for groups in (positions.joint, GROUPS)
    )
    got, want = bif(*joint, GROUPS, positions=positions), bif(*alone, GROUPS)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-9, atol=1e-12, err_msg=name)
    both = position_influence(current, GROUPS, PRESENT, EDGES, reference=past)
    for name in both:
        np.testing.assert_array_equal(got[name], both[name])
    assert (got.attrs["step"], got.attrs["reference_step"]) == (20, 9)


def test_a_group_and_a_bin_within_one_sequence_have_nan_influence():
    present = np.ones((3, 4), dtype=bool)
    present[1:, 3] = False
    groups = Groups({"first": np.arange(3) == 0, "others": np.arange(3) > 0}, present)
    loss = np.where(present, RNG.normal(size=(3, 8, 3, 4)), 0.0)
    got = position_influence(loss, groups, present, [0, 3, 4])["position_bif"]
    np.testing.assert_array_equal(np.isnan(got.sel(part="total")), [[False, True], [False, False]])


@pytest.mark.parametrize("bins", [0, 7, [0], [2, 2], [3, 1], [-1, 3], [0, 7]])
def test_bins_that_do_not_fit_are_refused(bins):
    with pytest.raises(InputError, match=r"got .*; expected .*; "):
        Positions(GROUPS, PRESENT, bins)


def test_empty_bins_duplicate_names_and_losses_without_tokens_are_refused():
    short = PRESENT.copy()
    short[:, 4:] = False
    with pytest.raises(InputError, match="got no loss at positions 4 to 5"):
        Positions(GROUPS, short, 3)
    with pytest.raises(InputError, match="rename it"):
        Positions(Groups({"position 0:6": PRESENT}, PRESENT), PRESENT, 1)
    with pytest.raises(InputError, match="losses without tokens"):
        Positions(Groups({}, PRESENT[:, 0]), PRESENT[:, 0], 1)


def test_even_bins_differ_by_at_most_one_position():
    present = np.ones((2, 511), dtype=bool)
    widths = np.diff(Positions(Groups({}, present), present, 8).edges)
    assert widths.sum() == 511
    assert widths.max() - widths.min() <= 1
