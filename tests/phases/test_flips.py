import numpy as np
import pytest
from scipy import stats

from stagewise.errors import InputError
from stagewise.phases.flips import SignFlip, find_flips, min_z_for_chance

STEPS = np.unique(np.rint(np.geomspace(10, 3000, 60)).astype(int))


def flips_twice(steps):
    """Zero at 40 and at 900 by construction, negative at both ends."""
    place = np.log(steps)
    return -(place - np.log(40)) * (place - np.log(900))


def chance(p, num):
    """That of ``num`` independent probes, sure with probability p, at least one is of each sign."""
    return 1 - 2 * (1 - p / 2) ** num + (1 - p) ** num


def test_known_crossings_are_found_between_the_probes_around_them():
    found = find_flips(STEPS, flips_twice(STEPS), np.full(len(STEPS), 1e-6))
    assert [flip.words for flip in found] == ["helpful, then harmful", "harmful, then helpful"]
    for flip, crossing in zip(found, (40, 900), strict=True):
        assert flip.step == pytest.approx(crossing, rel=1e-3)
        assert flip.earliest < crossing < flip.latest
        assert {flip.earliest, flip.latest} <= set(STEPS.tolist())
        assert np.searchsorted(STEPS, flip.latest) - np.searchsorted(STEPS, flip.earliest) == 1


def test_a_curve_that_is_linear_in_the_log_crosses_exactly_there():
    (flip,) = find_flips(STEPS, np.log(STEPS / 123.4), np.full(len(STEPS), 0.2))
    assert flip.step == pytest.approx(123.4, rel=1e-12)


def test_unsure_probes_widen_the_bounds_and_not_the_extremes():
    values, errors = np.log(STEPS / 100), np.full(len(STEPS), 0.2)
    (flip,) = find_flips(STEPS, values, errors)
    assert flip.earliest == STEPS[values < -0.6][-1]
    assert flip.latest == STEPS[values > 0.6][0]
    assert (flip.before, flip.after) == (values[0], values[-1])
    assert (flip.z_before, flip.z_after) == pytest.approx((values[0] / 0.2, values[-1] / 0.2))
    (sharper,) = find_flips(STEPS, values, errors, min_z=1.0)
    assert sharper.earliest == STEPS[values < -0.2][-1] > flip.earliest


def test_extremes_are_those_of_the_stretch_and_have_their_own_z():
    steps, values = np.arange(1, 8), np.array([-1.0, -3.0, -2.0, 0.1, 2.0, 4.0, -5.0])
    errors = np.array([0.1, 0.5, 0.1, 1.0, 0.1, 0.2, 0.1])
    first, second = find_flips(steps, values, errors)
    assert (first.earliest, first.latest, second.earliest, second.latest) == (3, 5, 6, 7)
    assert (first.before, first.z_before) == pytest.approx((-3.0, -6.0))
    assert (first.after, first.z_after) == (second.before, second.z_before) == pytest.approx((4.0, 20.0))
    assert second.after == -5.0


def test_a_dip_within_its_error_is_no_flip():
    values = np.ones(len(STEPS))
    values[20:25] = -0.5
    errors = np.full(len(STEPS), 0.2)
    assert not find_flips(STEPS, values, errors)
    assert len(find_flips(STEPS, values, errors, min_z=2.0)) == 2


def test_of_several_crossings_the_one_nearest_the_middle_counts():
    steps = np.array([10, 20, 40, 80, 160, 320, 640])
    values = np.array([-9.0, 0.2, -0.1, -0.1, 0.1, -0.1, 9.0])
    (flip,) = find_flips(steps, values, np.ones(7))
    # Middle: step 80. Crossings: 19.7, 31.7, 113, 226, 322.
    assert flip.step == pytest.approx(np.sqrt(80 * 160))
    # As near on both sides: the earlier.
    (flip,) = find_flips([1, 2, 4, 8], [-9.0, 0.1, -0.1, 9.0], np.ones(4), min_z=4.0)
    assert flip.step == pytest.approx(np.sqrt(8))
    (flip,) = find_flips([1, 4, 16, 64, 256], [-9.0, 0.0, 0.1, 0.0, 9.0], np.ones(5))
    assert flip.step == pytest.approx(4)


def test_initial_weights_do_not_break_the_logarithm():
    (flip,) = find_flips([0, 100, 200], [-1.0, 3.0, 3.0], [0.1, 0.1, 0.1])
    assert flip.step == pytest.approx(np.expm1(np.log(101) / 4))
    assert (flip.earliest, flip.latest) == (0, 100)
    # A flip later in the same run is where it would be without step 0.
    later = find_flips([0, 100, 200], [-1.0, -1.0, 1.0], [0.1, 0.1, 0.1])
    assert later[0].step == pytest.approx(np.sqrt(100 * 200))


@pytest.mark.parametrize("min_z", [2.0, 3.0])
def test_noise_alone_flips_as_rarely_as_the_binomial_law_says(min_z):
    num, curves = 30, 3000
    noise = np.random.default_rng(0).normal(size=(curves, num))
    errors = np.ones(num)
    count = sum(bool(find_flips(range(1, num + 1), curve, errors, min_z=min_z)) for curve in noise)
    expected = chance(2 * stats.norm.sf(min_z), num)
    assert abs(count - curves * expected) < 4 * np.sqrt(curves * expected * (1 - expected))
    if min_z == 3:
        assert expected < 0.002
    else:
        assert count > 500


def test_with_few_chains_degrees_of_freedom_keep_that_rate():
    num, curves, chains = 30, 3000, 4
    draws = np.random.default_rng(1).normal(size=(curves, num, chains))
    means, errors = draws.mean(axis=-1), draws.std(axis=-1, ddof=1) / np.sqrt(chains)

    def rate(**settings):
        pairs = zip(means, errors, strict=True)
        return np.mean([bool(find_flips(range(num), *pair, min_z=2.0, **settings)) for pair in pairs])

    expected = chance(2 * stats.norm.sf(2.0), num)
    assert abs(rate(degrees=chains - 1) - expected) < 4 * np.sqrt(expected * (1 - expected) / curves)
    assert rate() > 2 * expected


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 2.5, 1e6])
@pytest.mark.parametrize("min_z", [1.0, 3.0, 5.0])
def test_students_limit_has_the_tail_of_the_normal_one(degrees, min_z):
    limit = stats.t.isf(stats.norm.sf(min_z), degrees)
    for factor, count in ((1 - 1e-9, 0), (1 + 1e-9, 1)):
        values = np.array([-1.0, 1.0]) * limit * factor
        assert len(find_flips([1, 2], values, [1.0, 1.0], min_z=min_z, degrees=degrees)) == count


def test_students_limit_in_closed_form():
    """One degree of freedom: tan(pi (1/2 - q)); two: (1 - 2 q) / sqrt(2 q (1 - q)), q one tail."""
    tail = stats.norm.sf(3.0)
    for degrees, limit in ((1, 1 / np.tan(np.pi * tail)), (2, (1 - 2 * tail) / np.sqrt(2 * tail * (1 - tail)))):
        assert not find_flips([1, 2], [-limit * 0.999, 1e9], [1.0, 1.0], degrees=degrees)
        assert find_flips([1, 2], [-limit * 1.001, 1e9], [1.0, 1.0], degrees=degrees)


def test_probes_that_are_not_known_are_left_out():
    values, errors = np.log(STEPS / 100), np.full(len(STEPS), 0.2)
    keep = np.ones(len(STEPS), dtype=bool)
    keep[[3, 20, 21, 22, 40]] = False
    want = find_flips(STEPS[keep], values[keep], errors[keep])
    holes, unknown = values.copy(), errors.copy()
    holes[[3, 21, 22]] = np.nan
    holes[20], unknown[40] = np.inf, np.nan
    with np.errstate(all="raise"):
        assert find_flips(STEPS, holes, unknown) == want
    assert len(want) == 1
    assert not find_flips(STEPS, values, np.full(len(STEPS), np.nan))


def test_an_endless_error_is_never_sure_and_none_always():
    with np.errstate(all="raise"):
        assert not find_flips([1, 2], [-1.0, 1.0], [np.inf, 0.1])
        (flip,) = find_flips([1, 2, 3], [-1.0, 0.0, 1.0], [0.0, 0.0, 0.1])
    assert (flip.z_before, flip.step) == (-np.inf, 2)


def test_too_few_probes_have_no_flip():
    assert not find_flips([], [], [])
    assert not find_flips([5], [-1.0], [0.1])


@pytest.mark.parametrize(
    "bad",
    [
        {"values": [-1.0, 1.0]},
        {"errors": [0.1, 0.1]},
        {"errors": 0.1},
        {"steps": [1, 3, 2]},
        {"steps": [1, 2, 2]},
        {"steps": [-1, 2, 3]},
        {"steps": [1, 2.5, 3]},
        {"steps": [1, np.nan, 3]},
        {"errors": [0.1, -0.1, 0.1]},
        {"min_z": 0.0},
        {"min_z": -3.0},
        {"min_z": np.nan},
        {"min_z": 21.0},
        {"degrees": 0},
        {"degrees": np.inf},
    ],
)
def test_bad_input_is_refused_in_one_line(bad):
    with pytest.raises(InputError, match=r"got .*; expected ") as caught:
        find_flips(**{"steps": [1, 2, 3], "values": [-1.0, 1.0, 1.0], "errors": [0.1, 0.1, 0.1], **bad})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"after": -1.0}, {"z_before": 3.0}, {"before": 0.0}, {"step": 30.0}])
def test_a_flip_that_is_none_is_refused(bad):
    flip = {
        "step": 15.0,
        "earliest": 10,
        "latest": 20,
        "before": -1.0,
        "after": 2.0,
        "z_before": -4.0,
        "z_after": 5.0,
    }
    assert SignFlip(**flip).words == "helpful, then harmful"
    with pytest.raises(InputError, match=r"got .*; expected "):
        SignFlip(**{**flip, **bad})


@pytest.mark.parametrize(("num_probes", "chance"), [(2, 0.05), (45, 0.05), (45, 0.001), (10, 0.4)])
def test_noise_makes_a_flip_with_the_chance_that_was_asked_for(num_probes, chance):
    """The truth: among curves of noise, those that are sure on both sides somewhere."""
    limit = min_z_for_chance(num_probes, chance)
    noise = np.random.default_rng(3).standard_normal((200_000, num_probes))
    share = ((noise > limit).any(axis=1) & (noise < -limit).any(axis=1)).mean()
    assert share == pytest.approx(chance, abs=4 * np.sqrt(chance / len(noise)))


def test_the_limit_for_a_chance_is_the_one_that_find_flips_goes_by():
    limit = min_z_for_chance(30, 0.2)
    noise = np.random.default_rng(4).standard_normal((2_000, 30))
    steps = np.arange(1, 31)
    share = np.mean([bool(find_flips(steps, row, np.ones(30), min_z=limit)) for row in noise])
    assert share == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize(
    ("num_probes", "chance", "words"), [(1, 0.05, "num_probes=1"), (9, 0.0, "chance"), (9, 0.6, "chance")]
)
def test_a_chance_that_cannot_be_is_refused(num_probes, chance, words):
    with pytest.raises(InputError, match=words):
        min_z_for_chance(num_probes, chance)
