from matplotlib.figure import Figure

from stagewise.studies.toy.figures.style import mark_transitions


def test_transitions_are_lines_of_which_one_has_a_label(results):
    axes = Figure().subplots()
    mark_transitions(axes, results[0])
    assert [line.get_xdata()[0] for line in axes.lines] == results[0].exact.attrs["transitions"]
    assert axes.get_legend_handles_labels()[1] == ["true transition"]
