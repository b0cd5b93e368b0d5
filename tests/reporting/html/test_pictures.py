import base64
from io import BytesIO

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from stagewise.reporting.html.pictures import cell_colours, matrix_address, picture

pytestmark = pytest.mark.drawn


def pixels(address):
    return np.asarray(Image.open(BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"), dtype=int)


def test_a_pixel_has_the_colour_of_its_entry():
    matrix = np.array([[-1.0, 0.0], [np.nan, 3.0]])
    found = pixels(matrix_address(matrix, 2.0))
    for at, value in (((0, 0), -0.5), ((0, 1), 0.0), ((1, 1), 1.0)):
        want = 255 * np.array(colormaps["RdBu_r"](value / 2 + 0.5)[:3])
        assert np.abs(found[at] - want).max() <= 4
    assert found[1, 0].tolist() == [170, 170, 170]


def test_large_matrices_are_means_over_blocks():
    matrix = np.zeros((300, 300))
    matrix[:2, :2] = [[1.0, np.nan], [1.0, 1.0]]
    found = pixels(matrix_address(matrix, 1.0))
    assert found.shape == (150, 150, 3)
    assert found[0, 0].tolist() == pixels(matrix_address(np.ones((2, 2)), 1.0))[0, 0].tolist()
    assert found[0, 1].tolist() == pixels(matrix_address(np.zeros((2, 2)), 1.0))[0, 0].tolist()


def test_letters_can_be_read_on_their_cell():
    for value in (-1.0, -0.5, 0.0, 0.5, 1.0, float("nan")):
        back, letters = (
            np.array([int(cell_colour[at : at + 2], 16) for at in (1, 3, 5)])
            for cell_colour in cell_colours(value, 1.0)
        )
        assert abs(back.mean() - letters.mean()) > 80


def test_figures_of_many_points_are_stored_as_pixels():
    figure = Figure()
    figure.subplots().plot(np.arange(9), "o")
    assert picture(figure, "few").source.startswith("data:image/svg+xml;base64,")
    axes = Figure().subplots()
    axes.scatter(*np.random.default_rng(0).random((2, 9000)), rasterized=False)
    assert picture(axes.figure, "many").source.startswith("data:image/png;base64,")
