"""Figures that a run draws of itself."""

import inspect
from importlib import import_module

import numpy as np
import pytest
from matplotlib.figure import Figure

from stagewise.errors import InputError
from stagewise.runs.accessor import FIGURES
from tests.runs.controlled_run import controlled_run


def test_every_figure_is_a_public_function_of_a_run_and_is_drawn(full):
    texts = [[f"{row}{column}" for column in range(4)] for row in range(2)]
    given = {"tokens": {"tokens": texts, "query": (0, 1)}}
    assert set(FIGURES) == {"overview", "influence", "classes", "control", "llc", "samples", "tokens"}
    for kind, path in FIGURES.items():
        module, _, name = path.rpartition(".")
        first = next(iter(inspect.signature(getattr(import_module(module), name)).parameters))
        assert first == "run"
        run = controlled_run() if kind == "control" else full
        figure = run.stagewise.plot(kind, **given.get(kind, {}))
        assert isinstance(figure, Figure)
        assert figure.axes


def test_settings_reach_the_figure(synthetic, full):
    figure = synthetic.stagewise.plot(pairs=[("early", "late")], part="total")
    assert [axes.get_title() for axes in figure.axes] == ["early ~ late"]
    figure = full.stagewise.plot("samples", step=20)
    shown = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_array_equal(shown, full["bif_within"].sel(step=20))
    assert "step 20" in figure.axes[0].get_title()


def test_colours_of_tokens_show_the_influence_between_them(full):
    texts = [[f"{row}{column}" for column in range(4)] for row in range(2)]
    mask = full["mask"].sel(step=20).values[[5, 2]]
    query = (0, int(np.flatnonzero(mask[0])[0]))
    figure = full.stagewise.plot("tokens", texts, query, step=20, part="total")
    drawn = {patch.get_gid() for patch in figure.axes[0].patches}
    values = full["token_bif"].sel(step=20, token_part="total").values[query]
    assert f"sample 0, token {query[1]}" in drawn
    assert sum(str(name).startswith("sample") for name in drawn) == values.size


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("curve", {}, "got kind='curve'; expected one of overview, influence, classes, control, llc, samples, tokens"),
        ("control", {}, "control_every"),
        ("samples", {"step": 11}, "got step=11; expected a probe"),
        ("tokens", {"tokens": [["a"]], "query": (0, 0)}, r"probe\.token_samples"),
    ],
)
def test_figures_that_a_run_cannot_show_are_refused(synthetic, kind, given, words):
    with pytest.raises(InputError, match=words):
        synthetic.stagewise.plot(kind, **given)


def test_the_token_figure_refuses_other_probes_and_parts(full):
    texts = [[f"{row}{column}" for column in range(4)] for row in range(2)]
    with pytest.raises(InputError, match="got step=11"):
        full.stagewise.plot("tokens", texts, (0, 1), step=11)
    with pytest.raises(InputError, match="got part='between'; expected one of within, drift, total"):
        full.stagewise.plot("tokens", texts, (0, 1), part="between")
