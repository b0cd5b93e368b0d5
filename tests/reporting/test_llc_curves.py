"""The learning coefficient in the report, in TensorBoard and as scalars."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy.special import stdtrit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from stagewise.errors import InputError
from stagewise.influence.groups import Groups
from stagewise.reporting.llc_curves import llc_curves, llc_words
from stagewise.reporting.run_report import write_run_report
from stagewise.reporting.scalars import llc_scalars, probe_scalars
from stagewise.reporting.tags import LLC_LOCALIZED
from stagewise.reporting.tensorboard import write_layout
from stagewise.runs.llc_table import ALL_LOSSES, has_llc, llc_table
from tests.reporting.test_scalars import two_probes
from tests.runs.flipping_run import STEPS, flipping_run


def run_with_llc(*, share=0.2, error=0.05, chains=4):
    """Of all losses it rises and falls, with the maximum at step 500; that of ``cat`` too, that of ``dog`` is flat."""
    run = flipping_run()
    value = 3 - 2 * np.abs(np.log(STEPS / 500))
    shape = (len(STEPS), 2)
    groups = np.stack([2 * value, np.ones(len(STEPS))], axis=1)
    run["llc"] = ("step", value, {"chains": "its own", "nbeta": 30.0, "localization": 5.0, "lr": 1e-3})
    run["llc_se"] = ("step", np.full(len(STEPS), error))
    run["llc_localized_share"] = ("step", np.broadcast_to(share, len(STEPS)).copy())
    run["group_llc"] = (("step", "group"), groups)
    run["group_llc_se"] = (("step", "group"), np.full(shape, error))
    run["group_llc_localized_share"] = (("step", "group"), np.full(shape, 0.1))
    run["llc_chains"] = ("step", np.full(len(STEPS), chains))
    return run


def test_each_curve_has_a_panel_and_the_band_is_students_interval():
    run = run_with_llc(share=np.where(STEPS < 300, 0.9, 0.1))
    panels = [axes for axes in llc_curves(run, confidence=0.9).axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["all losses", "cat", "dog"]
    curve, held, localized = panels[0].lines[:3]
    np.testing.assert_array_equal(curve.get_ydata(), run["llc"])
    np.testing.assert_array_equal(localized.get_xdata(), [100, 200])
    np.testing.assert_array_equal(held.get_xdata(), STEPS[2:])
    assert to_hex(localized.get_markerfacecolor()) == "#ffffff"
    band = panels[1].collections[0].get_paths()[0].vertices
    top = band[np.isclose(band[:, 0], 500), 1].max()
    assert top == pytest.approx(6 + 0.05 * stdtrit(3, 0.95))


def test_the_words_tell_ends_share_and_boundaries():
    words = llc_words(run_with_llc(share=np.where(STEPS < 300, 0.9, 0.1)))
    assert "Chains: its own (nbeta 30, localization 5, lr 0.001)" in words
    assert "All losses: -0.219 ± 0.05 at step 100" in words
    assert "above 0.5 at 2 of 10 probes: **the height there is mostly due to the localization**" in words
    assert "At 1 of 10 probes it is not above 0" in words
    assert "| llc | 500 | maximum | 400 to 600 | 3 |" in words
    assert "| llc/cat | 500 | maximum |" in words
    assert "llc/dog" not in words
    unsure = run_with_llc(error=5.0)
    calm = llc_words(unsure.assign(llc=unsure["llc"] + 100, group_llc=unsure["group_llc"] + 100))
    assert "at no probe above 0.5" in calm
    assert "No stage boundary was found in llc, llc/cat, llc/dog" in calm


def test_a_share_that_is_none_is_not_shown_as_one():
    shares = np.full(len(STEPS), 0.1)
    shares[:2] = -42.0
    run = run_with_llc(share=shares)
    words = llc_words(run)
    assert "-42" not in words
    assert "median 0.1; at no probe above 0.5. No share at 2 of 10 probes (outside of -0.2 to 1.2)" in words
    probe = run.isel(step=0)
    assert LLC_LOCALIZED not in {tag for tag, value in llc_scalars(probe).items() if np.isfinite(value)}
    assert llc_scalars(run.isel(step=5))[LLC_LOCALIZED] == 0.1
    assert np.isnan(llc_table(run)["localized_share"].sel(group=ALL_LOSSES).values[:2]).all()
    none = llc_words(run_with_llc(share=-42.0))
    assert "Localized share: not known. No share at 10 of 10 probes" in none


def test_the_report_has_the_section_and_tensorboard_the_picture(tmp_path):
    path, _ = write_run_report(tmp_path, run_with_llc(), tmp_path / "out")
    text = path.read_text()
    assert "## Learning coefficient\n\nlambda_hat = nbeta (E[L] - L(w*))" in text
    assert text.count("(llc.png)") == 1
    assert (tmp_path / "out" / "llc.png").is_file()
    events = EventAccumulator(str(tmp_path / "out"), size_guidance={"images": 0})
    events.Reload()
    assert "01_curves/learning_coefficient" in events.Tags()["images"]


def test_runs_without_it_have_no_figure():
    assert not has_llc(flipping_run())
    assert not has_llc(run_with_llc().assign(llc=("step", np.full(len(STEPS), np.nan))))
    with pytest.raises(InputError, match="not a run with llc"):
        llc_curves(flipping_run())
    with pytest.raises(InputError, match="confidence=1"):
        llc_curves(run_with_llc(), confidence=1.0)


def test_scalars_have_the_tags_of_the_contract():
    _, probe = two_probes(3)
    values = probe_scalars(probe)
    assert values["llc/all"] == float(probe["llc"])
    for row, name in enumerate(("a", "b")):
        assert values[f"llc/{name}"] == float(probe["group_llc"][row])
        assert values[f"llc_se/{name}"] == float(probe["group_llc_se"][row])
    assert "sampler/llc_seconds" not in values
    lost = probe_scalars(probe.drop_vars([name for name in probe.data_vars if "llc" in name]))
    assert not [tag for tag in lost if "llc" in tag]


def test_one_chart_has_the_coefficients_of_all_groups(tmp_path):
    groups = Groups({"a": [True, True, False], "all": [True] * 3}, [True] * 3)
    layouts = []

    class Writer(SummaryWriter):
        def add_custom_scalars(self, layout):
            layouts.append(layout)

    with Writer(str(tmp_path)) as writer:
        write_layout([writer], groups)
    (chart,) = [chart for name, chart in layouts[0]["transitions"].items() if "learning coefficient" in name]
    assert chart == ["Multiline", ["^llc/all$", "^llc/a$"]]


def test_no_boundary_is_shown_where_most_coefficients_are_not_above_zero():
    run = run_with_llc()
    run["llc"] = run["llc"] - 10
    words = llc_words(run)
    assert "| llc | 500" not in words
    assert "| llc/cat | 500 | maximum |" in words
    told = "is shown for coefficients that are mostly not above 0 by their 95 % intervals: llc (10 of 10 probes)."
    assert told in words
    run["group_llc"] = run["group_llc"] - 10
    words = llc_words(run)
    assert "**Stage boundaries**" not in words
    assert "llc (10 of 10 probes), llc/cat (10 of 10 probes), llc/dog (10 of 10 probes)." in words


def test_a_boundary_where_the_interval_holds_zero_is_named_apart():
    run = run_with_llc()
    run["llc"] = 3.1 - run["llc"]  # .1 at its minimum, where half an interval is 3.18 x .05
    words = llc_words(run)
    assert "| llc | 500" not in words
    assert "| llc/cat | 500 | maximum |" in words
    told = "Not shown, since the coefficient there is not above 0 by its 95 % interval: llc at step 500 (minimum)."
    assert told in words
    run["llc"] = run["llc"] + 0.1
    assert "| llc | 500 | minimum |" in llc_words(run)
    assert "Not shown" not in llc_words(run)
