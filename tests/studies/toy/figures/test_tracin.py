import numpy as np
import pytest

from stagewise.studies.toy.figures.tracin import tracin


def test_sums_are_medians_over_pairs_with_their_sign_said(results, config):
    figure = tracin(results, config)
    axes, sums = figure.axes[0], results[0].chains["tracin"].values
    for relation in ("sibling", "cousin", "far"):
        pairs = [(i, j) for i in range(8) for j in range(8) if config.hierarchy.relation(i, j) == relation]
        (line,) = [line for line in axes.lines if line.get_label() == relation]
        expected = np.median([sums[:, i, j] for i, j in pairs], axis=0)
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    assert "positive = helpful" in axes.get_ylabel()
    assert "sign opposite" in figure.get_suptitle()


def test_net_over_gross_is_the_median_pair_of_each_seed(results, config):
    axes = tracin(results, config).axes[1]
    dots = [line.get_ydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    names = [f"{relation}_net_over_gross" for relation in ("sibling", "cousin", "far")]
    assert dots == [pytest.approx([result.figures[name] for result in results]) for name in names]
    assert axes.get_ylim()[0] == 0
