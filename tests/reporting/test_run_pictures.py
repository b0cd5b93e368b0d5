"""Class maps and curves show the numbers of a run, with scales and intervals that can be checked."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from scipy import stats

from stagewise.errors import InputError
from stagewise.phases.flips import find_flips
from stagewise.reporting.class_maps import chosen_steps, class_maps
from stagewise.reporting.influence_curves import influence_curves
from stagewise.runs.curves import curve_pairs, sure_flips

pytestmark = pytest.mark.drawn

STEPS = [10, 20, 30, 40, 50]
NAMES = ["a", "b", "c"]


def a_run(steps=STEPS, names=NAMES, num_chains=4):
    """Self-influence of a goes from helpful to harmful; b and c have no pair; the total part is ten times as large."""
    size = len(names)
    values = np.random.default_rng(0).normal(0, 0.1, (len(steps), 2, size, size))
    values = values + values.swapaxes(2, 3)
    values[:, 0, 0, 0] = np.linspace(-1, 1, len(steps))
    values[:, :, 1, 2] = values[:, :, 2, 1] = np.nan
    values[:, 1] *= 10
    axes = ("step", "part", "group", "group_j")
    return xr.Dataset(
        {
            "group_bif": (axes, values),
            "group_bif_se": (axes, np.full(values.shape, 0.03)),
            "chains_dropped": ("step", np.zeros(len(steps))),
        },
        coords={"step": list(steps), "part": ["within", "total"], "group": names, "group_j": names},
        attrs={"sgld": {"num_chains": num_chains}},
    )


def maps_of(figure):
    return [axes for axes in figure.axes if axes.get_title().startswith("step ")]


def test_every_map_shows_its_step_on_one_symmetric_scale():
    run = a_run()
    figure = class_maps(run, steps=[20, 50], part="total")
    panels = maps_of(figure)
    assert [axes.get_title() for axes in panels] == ["step 20", "step 50"]
    shown = run["group_bif"].sel(part="total", step=[20, 50]).values
    for axes, want in zip(panels, shown, strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array().filled(np.nan), want)
        assert image.get_clim() == (-np.nanmax(np.abs(shown)), np.nanmax(np.abs(shown)))
    blue, red = (to_hex(image.cmap(image.norm(value))) for value in (-1.0, 1.0))
    assert int(blue[1:3], 16) < int(blue[5:], 16)
    assert int(red[1:3], 16) > int(red[5:], 16)
    assert f"±{np.nanmax(np.abs(shown)):.2g} nats²" in figure.get_suptitle()
    assert "blue = negative = helpful" in figure.get_suptitle()


def test_dots_are_where_the_interval_leaves_zero_out():
    run = a_run(num_chains=3)
    (axes,) = maps_of(class_maps(run, steps=[10], confidence=0.9))
    values = run["group_bif"].sel(part="within", step=10).values
    sure = np.argwhere(np.abs(values) > 0.03 * stats.t.ppf(0.95, 2))
    assert 0 < len(sure) < 9
    assert sorted(map(tuple, axes.collections[0].get_offsets().tolist())) == sorted((c, r) for r, c in sure.tolist())
    unknown = run.assign(group_bif_se=run["group_bif_se"] * np.nan)
    assert len(maps_of(class_maps(unknown, steps=[10]))[0].collections[0].get_offsets()) == 0


def test_a_limit_that_is_given_holds():
    panels = maps_of(class_maps(a_run(), limit=0.25))
    assert len(panels) == 5
    assert all(axes.images[0].get_clim() == (-0.25, 0.25) for axes in panels)


def test_at_most_eight_steps_from_the_first_to_the_last():
    run = a_run(steps=range(1, 31))
    found = chosen_steps(run)
    assert (found[0], found[-1], len(found)) == (1, 30, 8)
    assert set(np.diff(found)) <= {4, 5}
    assert chosen_steps(a_run()) == STEPS
    assert chosen_steps(run, [7, 3]) == [7, 3]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title() == title)


def test_curves_are_the_values_and_bands_students_intervals():
    run = a_run()
    run["chains_dropped"] = ("step", [0, 1, 0, 0, 0])
    axes = panel(influence_curves(run, [("a", "b"), ("a", "a")], confidence=0.9), "a ~ b")
    values = run["group_bif"].sel(part="within", group="a", group_j="b").values
    line = next(item for item in axes.lines if len(item.get_xdata()) == 5)
    np.testing.assert_array_equal(line.get_xdata(), STEPS)
    np.testing.assert_array_equal(line.get_ydata(), values)
    half = 0.03 * stats.t.ppf(0.95, np.array([3, 2, 3, 3, 3]))
    vertices = axes.collections[0].get_paths()[0].vertices
    for step, low, high in zip(STEPS, values - half, values + half, strict=True):
        at = vertices[vertices[:, 0] == step, 1]
        assert (at.min(), at.max()) == pytest.approx((low, high))


def test_a_sure_change_of_sign_is_marked_where_it_is_found():
    run = a_run(steps=[10, 20, 40, 80, 160])
    curve = run[["group_bif", "group_bif_se"]].sel(part="within", group="a", group_j="a")
    (want,) = find_flips(curve["step"], curve["group_bif"], curve["group_bif_se"], degrees=3)
    assert sure_flips(run, "a", "a") == [want]
    figure = influence_curves(run, [("a", "a"), ("a", "b")])
    axes = panel(figure, "a")
    dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [want.step]
    spans = [patch for patch in axes.patches if patch.get_x() == want.earliest]
    assert spans[0].get_width() == want.latest - want.earliest
    assert f" {want.step:,.0f}" in [text.get_text() for text in axes.texts]
    assert not [line for line in panel(figure, "a ~ b").lines if line.get_linestyle() == "--"]
    assert sure_flips(a_run(num_chains=2), "a", "a") == []
    assert sure_flips(a_run(num_chains=1), "a", "a") == []


def test_nine_curves_are_shown_at_most_those_that_are_sure_first_and_of_two_groups():
    assert curve_pairs(a_run()) == [("a", "b"), ("a", "c"), ("a", "a"), ("c", "c"), ("b", "b")]
    many = a_run(names=list("abcdef"))
    limit = 0.03 * stats.t.isf((1 - 0.95 ** (1 / 5)) / 2, 3)
    sizes = {
        (one, two): float(abs(many["group_bif"].sel(part="total", group=one, group_j=two)).max())
        for one in "abcdef" for two in "abcdef" if one <= two
    }  # fmt: skip
    assert all(size > limit for size in sizes.values() if np.isfinite(size))
    crossing = sorted((pair for pair in sizes if np.isfinite(sizes[pair]) and len(set(pair)) == 2), key=sizes.get)
    assert curve_pairs(many, "total") == crossing[:-10:-1]
    figure = influence_curves(many, part="total")
    assert [axes.get_title() for axes in figure.axes] == [f"{one} ~ {two}" for one, two in crossing[:-10:-1]]
    assert "9 of 20 curves" in figure.get_suptitle()
    assert " of " not in influence_curves(many, [("a", "a")]).get_suptitle().replace("of sign", "")


@pytest.mark.parametrize(
    ("steps", "scale", "words"),
    [
        ([10, 20, 30], "linear", None),
        ([1, 4, 16, 64, 256], "log", ["1", "2", "5", "10", "20", "50", "100", "200"]),
        ([0, 1, 4, 16, 64, 256], "symlog", ["0", "1", "10", "100"]),
    ],
)
def test_sparser_probes_are_on_a_logarithmic_axis_and_the_initial_weights_stay_in_sight(steps, scale, words):
    figure = influence_curves(a_run(steps=steps), [("a", "a")])
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    assert axes.get_xlim()[0] <= steps[0]
    assert axes.get_xlim()[1] >= steps[-1]
    if words:
        assert [
            get_xticklabel.get_text() for get_xticklabel in axes.get_xticklabels() if get_xticklabel.get_text()
        ] == words


@pytest.mark.parametrize("draw", [class_maps, influence_curves])
@pytest.mark.parametrize(
    ("changes", "words"),
    [({"part": "middle"}, "got part='middle'; expected one of within, total"), ({"confidence": 1.5}, "confidence")],
)
def test_bad_settings_are_refused(draw, changes, words):
    with pytest.raises(InputError, match=words):
        draw(a_run(), **changes)


def test_runs_steps_and_pairs_that_are_not_there_are_refused():
    run = a_run()
    for bad, words in (
        (lambda: class_maps(run, steps=[15]), r"got steps \[15\]; expected steps of probes"),
        (lambda: class_maps(run, steps=[]), r"got steps \[\]"),
        (lambda: class_maps(run, limit=-1), "got limit=-1"),
        (lambda: class_maps(run.isel(step=0)), "not a run with group_bif"),
        (lambda: influence_curves(run.isel(step=0)), "not a run with group_bif"),
        (
            lambda: influence_curves(run, [("a", "z")]),
            r"got pairs \[\('a', 'z'\)\]; expected pairs of the",
        ),
        (lambda: influence_curves(run, []), r"got pairs \[\]"),
        (lambda: influence_curves(run, min_z=0), "min_z"),
    ):
        with pytest.raises(InputError, match=words):
            bad()
