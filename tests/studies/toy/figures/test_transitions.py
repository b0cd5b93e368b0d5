import numpy as np
import pytest

from stagewise.studies.toy.figures.transitions import transitions


def test_norms_of_the_parts_are_those_of_plain_loops(results, config):
    axes = transitions(results, config).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    parts = results[0].chains["parts"]
    for name in ("within", "drift", "between", "total"):
        matrices = parts.sel(part=name).values
        expected = [sum(m[i, j] ** 2 for i in range(8) for j in range(8) if i != j) ** 0.5 for m in matrices]
        drawn = lines[name].get_ydata()
        # The first probe has no reference, so nothing is between.
        skipped = 1 if name in ("between", "total") else 0
        assert np.isnan(drawn).sum() == skipped
        np.testing.assert_allclose(drawn[skipped:], expected[skipped:], rtol=1e-12)
    assert axes.get_yscale() == "log"
    assert "nats²" in axes.get_ylabel()


def test_signals_are_scaled_to_their_largest_with_their_windows_shaded(results, config):
    figure = transitions(results, config)
    for axes, detection in zip(figure.axes[1:], results[0].detections, strict=True):
        assert np.nanmax(axes.lines[0].get_ydata()) == pytest.approx(1)
        spans = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
        assert [(round(span.x0), round(span.x1)) for span in spans] == [
            (window.start, window.end) for window in detection.windows
        ]
    assert len(results[0].detections[0].windows) == 2
    signal = results[0].chains["signal"].values
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), signal / np.nanmax(signal))


def test_precision_and_recall_are_over_all_seeds(results, config):
    titles = [axes.get_title() for axes in transitions(results, config).axes[1:]]
    # Two bumps were made, at two of four true transitions.
    assert titles[0].endswith("precision 1.00, recall 0.50")
    assert titles[1].startswith("losses alone")
    assert titles[2].startswith("norm of the BIF")
