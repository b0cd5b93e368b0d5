import re
from itertools import pairwise

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch.utils.tensorboard import SummaryWriter

from stagewise.influence.groups import Groups
from stagewise.influence.token_bif import token_bif
from stagewise.reporting import tags
from stagewise.reporting.scalars import probe_scalars
from stagewise.reporting.tensorboard import (
    images_due,
    matrix_figure,
    rasterize,
    show_matrix,
    write_curves,
    write_layout,
    write_matrices,
    write_run_pictures,
    write_text,
    write_token_influence,
)
from stagewise.reporting.token_influence import TokenInfluence
from stagewise.runs.open import open_run
from tests.reporting.test_run_pictures import a_run
from tests.reporting.test_scalars import two_probes
from tests.runs.full_run import full_probes, write_full_run


@pytest.fixture(scope="module")
def probes():
    return two_probes(3)


def events_of(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def test_each_line_of_the_layout_is_exactly_one_tag(tmp_path, probes):
    with SummaryWriter(tmp_path) as writer:
        write_layout([writer], Groups({"a": np.arange(6) < 3, "b": np.arange(6) >= 3}, np.ones(6, dtype=bool)))
    (tensor,) = events_of(tmp_path).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert len(charts["BIF a ~ b (nats^2, negative = helpful)"]) == 4
    assert len(charts["BIF within, a ~ b (nats^2, negative = helpful)"]) == 1
    assert len(charts["BIF within, all pairs (nats^2, negative = helpful)"]) == 3
    logged = probe_scalars(probes[1])
    for patterns in charts.values():
        for pattern in patterns:
            # TensorBoard matches from the start: without the end anchor `a~b` would take `a~b_other` too.
            assert len([tag for tag in [*logged, *(f"{tag}_other" for tag in logged)] if re.match(pattern, tag)]) == 1


def test_charts_have_no_line_that_is_not_logged(tmp_path):
    groups = Groups({"a": np.arange(6) < 3, "b": np.arange(6) >= 3}, np.ones(6, dtype=bool))
    kept = ["influence/within/a~b", "influence/loss/b"]
    with SummaryWriter(tmp_path) as writer:
        write_layout([writer], groups, control=True, scalars=kept)
    (tensor,) = events_of(tmp_path).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    charts = [(place.title, [list(item.multiline.tag) for item in place.chart]) for place in layout.category]
    one = [f"^{re.escape(tag)}$" for tag in ("influence/within/a~b", "influence/loss/b", "llc/all")]
    signal = [f"^{re.escape(tag)}$" for tag in ("transition/signal", "transition/threshold")]
    assert charts == [
        ("influence within phases", [[one[0]], [one[0]]]),
        ("transitions", [signal, [one[1]], [one[2]]]),
    ]


@pytest.mark.drawn
def test_matrices_wait_for_a_reference(tmp_path, probes):
    with SummaryWriter(tmp_path) as writer:
        for probe in probes:
            write_matrices([writer], probe)
    events = events_of(tmp_path)
    assert [image.step for image in events.Images("influence/matrix/within")] == [1, 2]
    assert [image.step for image in events.Images("influence/matrix/between")] == [2]
    assert [image.step for image in events.Images("influence/matrix/total")] == [2]


def test_text_is_written(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        write_text([writer], "run/summary", "**hello**", 3)
    (event,) = events_of(tmp_path).Tensors("run/summary/text_summary")
    assert event.step == 3
    assert event.tensor_proto.string_val[0] == b"**hello**"


def test_colours_are_symmetric_around_white_and_helpful_is_blue():
    matrix = np.zeros((8, 8))
    matrix[0, 1:], matrix[1:, 0] = -1.0, -1.0
    matrix[7, 4] = 0.5
    figure = matrix_figure(matrix, "title", "nats^2")
    (image,) = figure.axes[0].get_images()
    low, high = image.get_clim()
    assert low == -high == -1.0
    red, _, blue, _ = image.cmap(image.norm(-1.0))
    assert blue > red
    assert min(image.cmap(image.norm(0.0))) > 0.96


@pytest.mark.drawn
def test_matrix_of_one_sample_or_all_zeros_is_drawn():
    for matrix in (np.array([[-1.0]]), np.zeros((3, 3))):
        pixels = rasterize(matrix_figure(matrix, "title", "nats^2"))
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        assert pixels.std() > 0


def test_pictures_of_a_run_stand_at_its_last_step(tmp_path):
    influence = TokenInfluence.of(token_bif(np.random.default_rng(0).normal(size=(2, 9, 1, 3))), [["x"] * 4], (0, 1))
    with SummaryWriter(tmp_path) as writer:
        write_run_pictures([writer], a_run(), part="total")
        write_token_influence([writer], influence, 7)
    write_run_pictures([], a_run())
    events = events_of(tmp_path)
    assert [image.step for image in events.Images("influence/classes/total")] == [50]
    assert [image.step for image in events.Images("01_curves/influence_total")] == [50]
    (text,) = events.Tensors("influence/token_bif/text_summary")
    assert text.step == 7
    assert "negative = helpful" in text.tensor_proto.string_val[0].decode()


def test_curves_are_those_of_what_a_run_has_and_come_before_all_charts(tmp_path):
    run = open_run(write_full_run(tmp_path / "run"))
    for name, given in (("whole", run), ("bare", run.drop_vars(["graddot", "llc"]))):
        with SummaryWriter(tmp_path / name) as writer:
            write_curves([writer], given)
    whole, bare = (events_of(tmp_path / name).Tags()["images"] for name in ("whole", "bare"))
    assert sorted(whole) == [
        "01_curves/influence_within",
        "01_curves/influence_within_and_gradients",
        "01_curves/learning_coefficient",
    ]
    assert bare == ["01_curves/influence_within"]
    assert [image.step for image in events_of(tmp_path / "whole").Images(whole[0])] == [40]
    charts = list(probe_scalars(full_probes()[-1]))
    assert max([tags.OVERVIEW, *whole]) < min(charts)


def test_probes_that_lie_close_are_drawn_five_percent_apart_and_others_all():
    wide = [round(10 * 1.08**number) for number in range(40)]
    for steps in (wide, [0, 1, 2, 3, 500]):
        assert all(images_due(earlier, step) for earlier, step in zip([None, *steps], steps, strict=False))
    close = range(1, 1501)
    drawn = [step for step in close if images_due(step - 1, step)]
    assert len(drawn) < 150
    late = [step for step in drawn if step > 100]
    wider = [step for step in close if images_due(step - 1, step, spacing=1.25)]
    assert len(wider) < 35
    assert all(1.2 < after / before < 1.3 for before, after in pairwise(step for step in wider if step > 100))
    assert all(1.04 < after / before < 1.07 for before, after in pairwise(late))
    # Who is drawn depends on the two steps alone, so that a resumed run draws the same.
    assert images_due(None, 777)


@pytest.mark.drawn
def test_a_heat_map_that_shows_another_matrix_is_that_of_the_other():
    one, other = np.diag([-1.0, -2.0, 3.0]) + 0.5, np.arange(9.0).reshape(3, 3) - 4
    figure = matrix_figure(one, "one", "nats^2")
    rasterize(figure)
    show_matrix(figure, other, "other")
    np.testing.assert_array_equal(rasterize(figure), rasterize(matrix_figure(other, "other", "nats^2")))
