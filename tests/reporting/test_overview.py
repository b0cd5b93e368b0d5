"""The overview shows the numbers of a run, has a panel for what there is, and takes odd runs."""

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from scipy import stats

from stagewise.errors import InputError
from stagewise.reporting.overview import group_colour, overview
from stagewise.reporting.overview_files import write_overview
from stagewise.reporting.scores import NAMES, Score
from stagewise.runs.open import open_run
from tests.reporting.test_run_pictures import STEPS, a_run
from tests.runs.flipping_run import flipping_run
from tests.runs.full_run import write_full_run

LOSS, SCORES, INFLUENCE, LLC, SIGNAL = "Loss at", "Scores of heads", "Influence within", "Local learning", "Signal"


def titles(figure):
    FigureCanvasAgg(figure).draw()
    return [axes.get_title(loc="left") for axes in figure.axes]


def panel(figure, words):
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(words))


def head(figure):
    return figure.get_suptitle()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return open_run(write_full_run(tmp_path_factory.mktemp("full")))


def test_each_panel_is_there_where_the_run_has_its_data(full):
    scores = [Score("prefix_matching", np.array([1, 30]), np.array([0.1, 0.9]))]
    assert [title.split(" ")[0] for title in titles(overview(full, scores=scores))] == [
        "Loss", "Scores", "Influence", "Local", "Signal:",
    ]  # fmt: skip
    assert [title.split(" ")[0] for title in titles(overview(full.drop_vars(["llc", "signal", "group_loss"])))] == [
        "Influence"
    ]
    assert [title.split(" ")[0] for title in titles(overview(flipping_run()))] == ["Influence"]
    with pytest.raises(InputError, match="expected one of them"):
        overview(full[["seconds"]])


def test_curves_are_the_influences_and_bands_students_intervals():
    run = a_run()
    axes = panel(overview(run, num_pairs=1, confidence=0.9), INFLUENCE)
    values = run["group_bif"].sel(part="within", group="a", group_j="a").values
    (line,) = [item for item in axes.lines if item.get_label() == "a"]
    np.testing.assert_array_equal(line.get_ydata(), values)
    half = 0.03 * stats.t.ppf(0.95, 3)
    vertices = axes.collections[0].get_paths()[0].vertices
    for step, value in zip(STEPS, values, strict=True):
        at = vertices[vertices[:, 0] == step, 1]
        assert (at.min(), at.max()) == pytest.approx((value - half, value + half))


def test_what_is_out_of_equilibrium_is_dashed_and_open_and_has_no_band():
    run = a_run().assign(equilibrated=("step", [1, 1, 0, 1, 1]))
    figure = overview(run, num_pairs=1)
    axes = panel(figure, INFLUENCE)
    (solid,) = [line for line in axes.lines if line.get_label() == "a"]
    assert np.isnan(solid.get_ydata()).tolist() == [False, False, True, False, False]
    (marks,) = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert marks.get_xdata().tolist() == [30]
    assert not any((path.vertices[:, 0] == 30).any() for path in axes.collections[0].get_paths())
    assert "1 of 5 probes out of equilibrium" in figure.get_supxlabel()


def test_windows_are_shaded_in_every_panel_and_named(full):
    run = full.copy()
    run.attrs["summary"] = '{"transitions": [{"start": 15, "peak": 20, "end": 30, "value": 0.4}]}'
    figure = overview(run)
    for axes in figure.axes:
        assert [(patch.get_x(), patch.get_width()) for patch in axes.patches if patch.get_x() == 15] == [(15, 15)]
    assert "a window at 15 to 30" in head(figure)
    assert "20" in [text.get_text() for text in panel(figure, SIGNAL).texts]
    # A part of a run shows its own windows alone.
    assert "a window" not in head(overview(run.isel(step=[2])))


def test_the_verdict_stands_over_it_and_why_there_is_no_window():
    run = flipping_run(with_summary=False)
    run["signal"] = ("step", np.linspace(9, 1, 10))
    said = head(overview(run)).replace("\n", " ")
    assert "no window was found: the signal is largest at its first probe" in said
    assert "positions:" in said
    assert "beyond\u00a0gradients:\u00a0not\u00a0known" in said
    written = flipping_run()
    verdict = {name: {"answer": "no"} for name in ("positions", "signs", "heights", "landscape")}
    summary = json.loads(written.attrs["summary"]) | {"verdict": verdict | {"text": "t"}}
    written.attrs["summary"] = json.dumps(summary)
    assert head(overview(written)).count("○") == 4


@pytest.mark.parametrize("width", [5.0, 10.0])
@pytest.mark.drawn
def test_many_groups_with_long_names_keep_to_the_page(width):
    names = [f"group number {number} with a name of {'very ' * 9}many letters" for number in range(20)]
    run = a_run(names=names)
    run["group_loss"] = (("step", "group"), np.ones((5, 20)))
    figure = overview(run, width=width)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        assert axes.get_position().width > 0.4
        legend = axes.get_legend()
        box = legend.get_window_extent(canvas.get_renderer())
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width + 1
        texts = [get_text.get_text() for get_text in legend.get_texts()]
        assert len(texts) <= 7
        assert len(set(texts)) == len(texts)
    assert "14 more groups" in [get_text.get_text() for get_text in figure.axes[0].get_legend().get_texts()]


@pytest.mark.parametrize("steps", [[7], [0, 5], [0, 1, 4, 16, 64, 256]])
@pytest.mark.parametrize("names", [["all"], ["a", "b"]])
@pytest.mark.drawn
def test_few_probes_and_one_group_are_drawn(steps, names):
    run = a_run(steps=steps, names=[*names, "x", "y"]).isel(group=range(len(names)), group_j=range(len(names)))
    assert titles(overview(run))[0].startswith(INFLUENCE)


def test_scores_lie_beside_the_store(tmp_path):
    run = open_run(write_full_run(tmp_path))
    (tmp_path / "circuits.csv").write_text("step,layer,head,prefix_matching\n10,0,0,0.1\n20,0,0,0.7\n")
    (line,) = [item for item in panel(overview(run), SCORES).lines if item.get_label() == "prefix matching"]
    assert line.get_ydata().tolist() == [0.1, 0.7]
    assert not [title for title in titles(overview(run, scores=[])) if title.startswith(SCORES)]


def test_copying_scores_of_random_heads_do_not_set_the_range(full):
    """An untrained model's copying score jumps between -1 and 1 beside a prefix matching of .05."""
    steps = np.array([1, 10, 20, 30])
    prefix = Score("prefix_matching", steps, np.array([0.05, 0.06, 0.07, 0.08]))
    noise = Score("copying", steps, np.array([0.7, -0.8, 0.6, -0.5]))
    axes = panel(overview(full, scores=[prefix, noise]), SCORES)
    assert [item.get_label() for item in axes.lines if not item.get_label().startswith("_")] == ["prefix matching"]
    assert max(map(abs, axes.get_ylim())) < 0.1
    formed = Score("prefix_matching", steps, np.array([0.05, 0.06, 0.5, 0.8]))
    axes = panel(overview(full, scores=[formed, noise]), SCORES)
    (line,) = [item for item in axes.lines if item.get_label().startswith("copying (prefix")]
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, np.nan, 0.6, -0.5])


@pytest.mark.drawn
def test_it_is_a_file_in_the_folder_of_the_run_and_an_image(tmp_path):
    class Writer:
        images = ()

        def flush(self):
            pass

        def add_image(self, tag, image, *, global_step, dataformats):
            self.images = (*self.images, (tag, image.shape[2], global_step, dataformats))

    writer = Writer()
    run = open_run(write_full_run(tmp_path))
    path = write_overview([writer], tmp_path, 40, run)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert writer.images == (("00_overview", 3, 40, "HWC"),)
    assert write_overview([writer], tmp_path, 40, run[["chains_dropped"]]) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 1}, "width"),
        ({"num_pairs": 0}, "num_pairs"),
        ({"num_pairs": 99}, "num_pairs"),
        ({"confidence": 1}, "confidence"),
    ],
)
def test_bad_settings_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        overview(a_run(), **changes)
    with pytest.raises(InputError, match="axis of steps"):
        overview(a_run().isel(step=0))
    with pytest.raises(InputError, match="got probes=0; expected one or more"):
        overview(a_run().isel(step=[]))


def test_band_of_the_signal_has_the_asked_confidence():
    """Students interval of four chains."""
    run = a_run()
    size = run.sizes["step"]
    run = run.assign(signal=("step", np.full(size, 5.0)), signal_se=("step", np.full(size, 0.1)))
    axes = panel(overview(run, confidence=0.9), SIGNAL)
    vertices = axes.collections[0].get_paths()[0].vertices
    half = 0.1 * stats.t.ppf(0.95, 3)
    assert (vertices[:, 1].min(), vertices[:, 1].max()) == pytest.approx((5 - half, 5 + half))


def test_scores_beyond_the_colours_are_counted():
    steps = np.array([1, 10])
    names = [name for name in NAMES if name not in ("prefix_matching", "previous_token", "copying")]
    scores = [Score(names[row % len(names)], steps, np.array([0.1, row])) for row in range(7)]
    axes = panel(overview(a_run(), scores=scores), SCORES)
    assert len(axes.lines) == 5 + sum(line.get_label().startswith("_") for line in axes.lines)
    assert axes.get_title(loc="left") == "Scores of heads; 5 of 7 curves"


def test_colours_are_those_of_positions_and_a_pair_of_two_has_both():
    run = a_run()
    names = [str(name) for name in run["group"].values]
    run["group_loss"] = (("step", "group"), np.ones((len(STEPS), len(names))))
    figure = overview(run, num_pairs=8)
    for words in (LOSS, INFLUENCE):
        for line in panel(figure, words).lines:
            if line.get_label() in names:
                assert line.get_color() == group_colour(names.index(line.get_label()))
    pairs = [line for line in panel(figure, INFLUENCE).lines if " ~ " in str(line.get_label())]
    assert pairs
    for line in pairs:
        one, two = line.get_label().split(" ~ ")
        assert line.get_color() == group_colour(names.index(one))
        assert to_hex(line.get_gapcolor()) == to_hex(group_colour(names.index(two)))
    assert len({to_hex(group_colour(place)) for place in range(30)}) == 30


def test_curves_that_are_left_out_are_counted():
    run = a_run()
    known = np.isfinite(run["group_bif"].sel(part="within").values).any(0)
    every = np.triu(known).sum()
    said = panel(overview(run, num_pairs=2), INFLUENCE).get_title(loc="left")
    assert f"2 of {every} curves: the strongest" in said
    few = run.isel(group=[0], group_j=[0])
    assert "the strongest" not in panel(overview(few), INFLUENCE).get_title(loc="left")


def test_a_large_value_out_of_equilibrium_does_not_set_the_range_and_has_a_mark():
    run = a_run().assign(equilibrated=("step", [0, 1, 1, 1, 1])).copy(deep=True)
    run["group_bif"].loc[{"step": STEPS[0], "part": "within", "group": "a", "group_j": "a"}] = 1000.0
    axes = panel(overview(run, num_pairs=1), INFLUENCE)
    inside = run["group_bif"].sel(part="within", group="a", group_j="a").values[1:]
    assert np.abs(inside).max() <= max(map(abs, axes.get_ylim())) < 10
    (mark,) = [line for line in axes.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert list(mark.get_xdata()) == [STEPS[0]]
    settled = panel(overview(run.assign(equilibrated=("step", np.ones(5))), num_pairs=1), INFLUENCE)
    assert settled.get_ylim()[1] > 1000


def test_a_window_whose_peak_is_out_of_equilibrium_is_hatched():
    run = flipping_run()
    run["signal"] = ("step", np.linspace(9, 1, 10))
    for good, hatch in ((1, None), (0, "///")):
        whole = run.assign(equilibrated=("step", np.where(run["step"].values == 500, good, 1)))
        for axes in overview(whole).axes:
            (patch,) = [item for item in axes.patches if item.get_x() == 400]
            assert patch.get_hatch() == hatch


def test_the_foot_explains_both_kinds_of_open_marks(full):
    run = full.copy().assign(llc_localized_share=("step", [0.9, 0.1, 0.1]))
    run = run.assign(equilibrated=("step", [0, 1, 1]), reference_equilibrated=("step", [0, 0, 1]))
    said = overview(run).get_supxlabel().replace("\n", " ")
    assert "2 of 3 probes out of equilibrium (the chains of 1 had not settled" in said
    assert "those of the reference probe of 1 had not)" in said
    assert "mostly that of the localization" in said
    assert "loss_fall" not in said
