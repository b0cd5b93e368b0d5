"""Turns of a curve: found where they are, seldom where there is none."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from stagewise.errors import InputError
from stagewise.phases.stage_boundaries import boundaries_above_zero, find_boundaries, stage_boundaries

STEPS = np.unique(np.geomspace(10, 10_000, 40).astype(int))
PLACE = np.log(STEPS)


def bump(middle, width=0.7, height=3.0):
    return height * np.exp(-(((PLACE - middle) / width) ** 2))


def noisy(curve, sigma, degrees, generator):
    """Measured values, with errors as they come from so many degrees of freedom."""
    errors = sigma * np.sqrt(generator.chisquare(degrees, len(curve)) / degrees)
    return curve + sigma * generator.standard_normal(len(curve)), errors


def many(curve, sigma, degrees, repetitions=100, seed=0, **settings):
    generator = np.random.default_rng(seed)
    return [
        find_boundaries(
            STEPS, *noisy(curve, sigma, degrees, generator), degrees=degrees, seed=row, num_resamples=200, **settings
        )
        for row in range(repetitions)
    ]


def test_without_noise_the_turns_are_the_extremes_and_the_interval_is_their_neighbours():
    curve = bump(4.0, 0.5) + bump(7.5, 0.5)
    found = find_boundaries(STEPS, curve, np.full(len(STEPS), 1e-9))
    top, low, other = np.argmax(curve[:20]), 12 + np.argmin(curve[12:30]), 20 + np.argmax(curve[20:])
    assert [(str(item.kind), item.step) for item in found] == [
        ("maximum", STEPS[top]),
        ("minimum", STEPS[low]),
        ("maximum", STEPS[other]),
    ]
    for item, place in zip(found, (top, low, other), strict=True):
        assert (item.earliest, item.latest) == (STEPS[place - 1], STEPS[place + 1])
        assert item.value == curve[place]


def test_errors_of_zero_make_every_turn_sure():
    found = find_boundaries([1, 2, 4, 8, 16], [0.0, 1.0, 0.5, 0.5, 2.0], np.zeros(5))
    assert [(str(item.kind), item.step) for item in found] == [("maximum", 2), ("minimum", 4)]
    assert np.isinf(found[0].significance)


@pytest.mark.parametrize("degrees", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_noise_alone_seldom_makes_a_boundary(degrees):
    flat = many(np.zeros(len(STEPS)), 0.3, degrees, repetitions=60)
    assert sum(bool(item) for item in flat) <= 9  # 3 expected
    rising = many(0.3 * PLACE, 0.3, degrees, repetitions=60, seed=1)
    assert sum(bool(item) for item in rising) <= 6
    # Errors taken for known that are not: this is what the degrees are for.
    generator = np.random.default_rng(2)
    naive = [find_boundaries(STEPS, *noisy(0 * PLACE, 0.3, 1, generator), num_resamples=200) for _ in range(60)]
    assert sum(bool(item) for item in naive) > 8


def test_a_lower_chance_finds_fewer():
    often = many(np.zeros(len(STEPS)), 0.3, 5, repetitions=60, chance=0.5)
    seldom = many(np.zeros(len(STEPS)), 0.3, 5, repetitions=60, chance=0.01)
    assert sum(bool(item) for item in often) > 15 > 5 > sum(bool(item) for item in seldom)


@pytest.mark.parametrize(("degrees", "height"), [(3, 3.0), pytest.param(7, 3.0, marks=pytest.mark.slow), (7, 10.0)])
def test_the_maximum_of_a_curve_is_found_and_lies_in_its_interval(degrees, height):
    found = many(bump(6.0, height=height), 0.3, degrees)
    assert sum(len(item) == 1 for item in found) >= 90
    inside = [item[0].earliest <= np.exp(6.0) <= item[0].latest for item in found if item]
    assert np.mean(inside) >= 0.93
    # Wide where a curve is flat and noisy, but no more than the bump.
    widths = [np.log(item[0].latest / item[0].earliest) for item in found if item]
    assert 0.3 < np.median(widths) < 1.6


def test_a_valley_is_a_minimum_and_values_that_are_unknown_are_left_out():
    curve = -bump(6.0)
    values, errors = curve.copy(), np.full(len(STEPS), 0.05)
    values[3], errors[30] = np.nan, np.nan
    (found,) = find_boundaries(STEPS, values, errors, degrees=3)
    assert str(found.kind) == "minimum"
    assert found.earliest < np.exp(6.0) < found.latest
    assert found.significance > 10


def test_the_same_seed_gives_the_same_and_few_probes_none():
    generator = np.random.default_rng(0)
    values, errors = noisy(bump(6.0), 0.3, 7, generator)
    assert find_boundaries(STEPS, values, errors, seed=4) == find_boundaries(STEPS, values, errors, seed=4)
    assert find_boundaries([1, 2], [0.0, 1.0], [0.1, 0.1]) == []
    assert find_boundaries(STEPS, values, errors * np.nan) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": STEPS[::-1]}, "steps that increase"),
        ({"values": np.zeros(3)}, "equal lengths"),
        ({"errors": np.full(len(STEPS), -1.0)}, "errors=-1"),
        ({"degrees": 0.0}, "degrees=0"),
        ({"chance": 1.0}, "chance=1.0"),
        ({"num_resamples": 10}, "num_resamples=10"),
    ],
)
def test_what_cannot_be_used_is_refused(changes, words):
    given = {"steps": STEPS, "values": np.zeros(len(STEPS)), "errors": np.ones(len(STEPS))} | changes
    with pytest.raises(InputError, match=words):
        find_boundaries(given.pop("steps"), given.pop("values"), given.pop("errors"), **given)


def test_coefficients_of_a_run_are_read_by_name_with_the_fewest_chains_and_none_of_one_chain():
    errors = np.full(len(STEPS), 0.1)
    chains = np.full(len(STEPS), 4)
    chains[5], chains[9] = 1, 3
    values = bump(6.0)
    values[5] = 50.0  # of a single chain: left out
    run = xr.Dataset(
        {
            "llc": ("step", values),
            "llc_se": ("step", errors),
            "group_llc": (("step", "group"), np.stack([0 * PLACE, -values], axis=1)),
            "group_llc_se": (("step", "group"), np.stack([errors, errors], axis=1)),
            "llc_chains": ("step", chains),
        },
        coords={"step": STEPS, "group": ["flat", "valley"]},
    )
    found = stage_boundaries(run)
    assert list(found) == ["llc", "llc/flat", "llc/valley"]
    assert found["llc/flat"] == []
    usable = chains >= 2
    assert found["llc"] == find_boundaries(STEPS[usable], values[usable], errors[usable], degrees=2.0)
    assert [str(item.kind) for item in found["llc/valley"]] == ["minimum"]
    assert list(stage_boundaries(run, ["llc/valley"])) == ["llc/valley"]
    with pytest.raises(InputError, match="'llc/cat'"):
        stage_boundaries(run, ["llc/cat"])
    with pytest.raises(InputError, match=r"probe\.llc\.enabled"):
        stage_boundaries(run.drop_vars("llc"), ["llc"])


@pytest.mark.parametrize(("below", "found"), [(2, {}), (3, {"llc": (3, 5)}), (5, {"llc": (5, 5)})])
def test_coefficients_mostly_not_above_zero_are_told_half_of_them_are_not_enough(below, found):
    values = np.where(np.arange(6) < below, -1.0, 1.0)
    values[5] = np.nan
    run = xr.Dataset(
        {"llc": ("step", values), "llc_se": ("step", np.ones(6))}, coords={"step": np.arange(6), "group": ["a"]}
    )
    assert boundaries_above_zero(run, {"llc": []}).left_out == found
    assert boundaries_above_zero(run, {}).left_out == {}


def test_a_boundary_counts_where_the_interval_of_its_coefficient_is_above_zero():
    errors, chains = np.full(len(STEPS), 0.5), np.full(len(STEPS), 4)
    bottom = 0.5 * stats.t.isf(0.025, 3)  # half of an interval
    deep, higher = (
        end + 9 - bump(6.0, height=9.0) - (9 - bump(6.0, height=9.0)).min() for end in (0.9 * bottom, 1.1 * bottom)
    )
    run = xr.Dataset(
        {
            "llc": ("step", deep),
            "llc_se": ("step", errors),
            "group_llc": (("step", "group"), np.stack([higher, 9.0 + 0 * deep], axis=1)),
            "group_llc_se": (("step", "group"), np.stack([errors, errors], axis=1)),
            "llc_chains": ("step", chains),
        },
        coords={"step": STEPS, "group": ["a", "b"]},
    )
    found = stage_boundaries(run)
    assert [str(item.kind) for item in found["llc"]] == [str(item.kind) for item in found["llc/a"]] == ["minimum"]
    split = boundaries_above_zero(run, found)
    assert split.shown == {"llc": [], "llc/a": found["llc/a"], "llc/b": []}
    assert split.withheld == {"llc": found["llc"]}
    assert split.left_out == {}
    single = boundaries_above_zero(run.assign(llc_chains=("step", np.ones(len(STEPS)))), found)
    assert single.shown["llc"] == found["llc"]  # the value itself is above zero
    below = run.assign(llc=("step", np.where(np.arange(len(STEPS)) < 0.6 * len(STEPS), 0.9 * bottom, 9.0)))
    assert set(boundaries_above_zero(below, {"llc": found["llc"]}).left_out) == {"llc"}
