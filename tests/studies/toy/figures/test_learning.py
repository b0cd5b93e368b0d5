import numpy as np

from stagewise.studies.toy.figures.learning import learning


def test_learned_and_closed_form_strengths_of_every_mode_are_drawn(results, config):
    axes = learning(results, config).axes[0]
    exact, first = results[0].exact, config.probed_steps[0]
    solid = [line for line in axes.lines if len(line.get_xdata()) > 2 and line.get_linestyle() == "-"]
    dashed = [line for line in axes.lines if len(line.get_xdata()) > 2 and line.get_linestyle() == "--"]
    for lines, name in ((solid, "mode_strength"), (dashed, "mode_strength_closed")):
        assert len(lines) == 8
        for mode, line in enumerate(lines):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(first, 421))
            np.testing.assert_array_equal(line.get_ydata(), exact[name].values[first:, mode])


def test_equal_modes_have_one_colour_and_one_entry(results, config):
    axes = learning(results, config).axes[0]
    words = [get_text.get_text() for get_text in axes.get_legend().get_texts()]
    assert words[:4] == ["mode 1, s = 3.87", "mode 2, s = 2.65", "modes 3 to 4, s = 1.73", "modes 5 to 8, s = 1.00"]
    assert len({line.get_color() for line in axes.lines if len(line.get_xdata()) > 2}) == 4
    assert axes.get_xlabel() == "training step"
    assert f"seed {results[0].seed}" in axes.figure.get_suptitle()
