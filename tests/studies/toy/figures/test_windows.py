import numpy as np
import pytest

from stagewise.studies.toy.ablation import window_means
from stagewise.studies.toy.figures.windows import windows

READINGS = ("window_end", "run_end", "maximum")


@pytest.mark.parametrize(("row", "weight"), [(0, 0.0), (1, 2.0)])
def test_dots_are_the_effect_against_influence_in_the_shortest_windows(results, config, row, weight):
    figure = windows(results, config)
    chains, exact = results[0].chains, results[0].exact
    apart = ~np.eye(8, dtype=bool)
    steps = chains["step"].values.astype(float)
    starts = exact["window_start"].values
    bif = np.stack([window_means(steps, chains["bif"].values, start, start + 20) for start in starts])[:, apart].ravel()
    for axes, reading in zip(figure.axes[4 * row + 1 : 4 * row + 4], READINGS, strict=True):
        dots = [np.array(line.get_data()) for line in axes.lines if line.get_marker() == "o"]
        effect = exact[reading].sel(window_length=20, window_weight=weight).values[:, apart].ravel()
        assert sorted(zip(*np.hstack(dots), strict=True)) == sorted(zip(bif, effect, strict=True))
        assert f"r = {np.corrcoef(bif, effect)[0, 1]:.2f}" in axes.get_title()
    assert f"weight {weight:g}" in figure.axes[4 * row + 1].get_ylabel()


def test_correlations_of_every_length_reading_and_seed_are_drawn(results, config):
    axes = windows(results, config).axes[4]
    drawn = [line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    names = [f"{reading}_r_{length}_weight_2" for reading in READINGS for length in (20, 50)]
    assert drawn == [[result.figures[name] for result in results] for name in names]


def test_the_legend_names_lengths_and_relations(results, config):
    words = [get_text.get_text() for get_text in windows(results, config).legends[0].get_texts()]
    assert words == ["windows of 20 steps", "windows of 50 steps", "sibling", "cousin", "far"]
