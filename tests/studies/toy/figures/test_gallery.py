import matplotlib
import pytest
from matplotlib.image import imread

from stagewise.studies.toy.figures.gallery import DPI, FIGURES, write_figures
from stagewise.toy.hierarchy import Hierarchy
from tests.studies.toy.figures.synthetic import LOPSIDED, config_of, results_of
from tests.toy.trees import balanced

pytestmark = pytest.mark.drawn


def test_every_figure_is_written_in_the_order_of_the_report(tmp_path, results, config):
    before = dict(matplotlib.rcParams)
    written = write_figures(tmp_path / "new" / "figures", results, config)
    assert [path.name for path in written] == [
        "learning.png",
        "showcase.png",
        "agreement.png",
        "flips.png",
        "transitions.png",
        "windows.png",
        "representations.png",
        "tracin.png",
    ]
    for path in written:
        pixels = imread(path)
        assert pixels.shape[1] <= 10.01 * DPI
        assert pixels[..., :3].std() > 0.05, f"{path.name} is blank"
    assert dict(matplotlib.rcParams) == before


def boxes_of(figure):
    """Where all that is drawn is, in pixels: panels with their words, and the title and legends over all panels."""
    figure.draw_without_rendering()
    parts = {f"panel {axes.get_title()!r}": axes.get_tightbbox() for axes in figure.axes}
    parts |= {f"legend {number}": item.get_window_extent() for number, item in enumerate(figure.legends)}
    return parts | {"title": figure._suptitle.get_window_extent()}


@pytest.mark.parametrize("stem", FIGURES)
def test_nothing_is_cut_off_and_titles_and_legends_stand_clear(stem, results, config):
    figure = FIGURES[stem](results, config)
    boxes = boxes_of(figure)
    page = figure.bbox.padded(1)
    for name, box in boxes.items():
        assert page.fully_contains(box.x0, box.y0), name
        assert page.fully_contains(box.x1, box.y1), name
    own = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    clear = own + [box for name, box in boxes.items() if not name.startswith("panel")]
    for number, box in enumerate(clear):
        assert not any(box.overlaps(other) for other in clear[:number]), stem
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.bbox) for axes in figure.axes)


ODD = {
    "lopsided": (Hierarchy(LOPSIDED), {"weights": (2.0,), "seeds": (4,)}, {}),
    "no far pair": (balanced(2, 2, root_property=False), {"seeds": (4, 5, 6)}, {}),
    "siblings only": (balanced(1, 4), {"weights": (0.5,)}, {}),
    "nothing found": (Hierarchy(), {}, {"error": 1e3, "bumps": False}),
}


@pytest.fixture(
    scope="module", params=[item if item == "lopsided" else pytest.param(item, marks=pytest.mark.slow) for item in ODD]
)
def odd(request):
    hierarchy, settings, outcome = ODD[request.param]
    config = config_of(hierarchy, **settings)
    return results_of(config, **outcome), config


@pytest.mark.parametrize("stem", FIGURES)
@pytest.mark.filterwarnings("error")
def test_other_trees_and_results_can_be_drawn(odd, stem):
    assert len(boxes_of(FIGURES[stem](*odd))) >= 2
