import numpy as np
import pytest
import xarray as xr

from stagewise.reporting.influence_curves import influence_curves
from stagewise.runs.curves import sure_flips
from stagewise.runs.equilibrium import flag_counts, settled_probes, unread_start, unsettled_words
from stagewise.runs.moving_groups import moves
from stagewise.runs.sign_changes import find_sign_changes
from tests.runs.flipping_run import STEPS, flipping_run


def with_unsettled(steps, *, references=()):
    """Returns the run whose influence turns, with probes out of equilibrium at some steps."""
    run = flipping_run()
    own, past = ~np.isin(STEPS, steps), ~np.isin(STEPS, references)
    run["equilibrated"] = ("step", own.astype(float))
    run["reference_equilibrated"] = ("step", past.astype(float))
    names = ["ess" if fine else "rhat, ess, slide" for fine in own]
    run["flag_names"] = ("step", np.array(names, dtype=object))
    return run


def panel(run, part="within"):
    return influence_curves(run, [("cat", "cat")], part=part)


def test_flags_are_counted_and_the_cause_is_named():
    run = with_unsettled([100, 200], references=[300])
    assert flag_counts(run) == {"ess": 10, "rhat": 2, "slide": 2}
    assert settled_probes(run).tolist() == [False] * 3 + [True] * 7
    assert unsettled_words(run) == "3 of 10 probes out of equilibrium (rhat 2, slide 2, reference 1)"


def test_a_run_without_such_probes_or_of_an_earlier_version_has_no_words():
    for run in (with_unsettled([]), flipping_run()):
        assert unsettled_words(run) is None
        assert settled_probes(run).all()
        assert not panel(run).legends
    assert flag_counts(flipping_run()) == {}


@pytest.mark.parametrize("part", ["within", "total"])
def test_curve_is_open_and_has_no_band_out_of_equilibrium_and_the_legend_says_why(part):
    figure = panel(with_unsettled([100, 200], references=[600]), part)
    axes = figure.axes[0]
    solid = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 10]
    (known,) = [line for line in solid if np.isnan(line.get_ydata()).any()]
    assert STEPS[np.isnan(known.get_ydata())].tolist() == [100, 200, 600]
    (opened,) = [line for line in axes.lines if line.get_markerfacecolor() == "white" and line.get_marker() == "o"]
    assert np.isfinite(opened.get_ydata()).all()
    band = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert not np.isin([100, 200, 600], band[:, 0]).any()
    assert np.isin([300, 500, 700, 1000], band[:, 0]).all()
    (legend,) = figure.legends
    said = legend.get_texts()[0].get_text()
    assert (
        "3 of 10 probes out of equilibrium (the chains of 2 had not settled; those of the reference probe of 1" in said
    )


def test_sign_changes_ignore_probes_out_of_equilibrium():
    assert len(sure_flips(flipping_run(), "cat", "cat")) == 1
    early = with_unsettled([100, 200, 300, 400, 500])
    assert sure_flips(early, "cat", "cat") == []
    found = find_sign_changes(early)
    assert found.found == ()
    assert "No change rests on the 5 of 10 probes out of equilibrium (rhat 5, slide 5)." in found.markdown()
    # Those that are left decide where it is.
    (flip,) = sure_flips(with_unsettled([300, 800]), "cat", "cat")
    assert (flip.earliest, flip.latest) == (200, 900)
    assert sure_flips(with_unsettled(STEPS), "cat", "cat") == []


def test_groups_do_not_move_from_or_to_a_probe_out_of_equilibrium():
    assert moves(with_unsettled([500]), 250, 850)
    assert moves(with_unsettled([200]), 250, 850) == []
    assert moves(with_unsettled([], references=[900]), 250, 850) == []


@pytest.mark.parametrize(
    ("settled", "losses", "words"),
    [
        ([0, 0, 1, 1], [4.0, 2.0, 1.0, 0.9], "steps 25 to 50, where losses fall most, cannot be read"),
        ([0, 0, 1, 1], [4.0, 3.9, 3.8, 0.9], "steps 25 to 50 cannot be read"),
        ([0, 0, 1, 1], [1.0, 2.0, 3.0, 4.0], "steps 25 to 50 cannot be read"),
        ([0, 0, 1, 1], [np.nan, 2.0, 1.0, 0.9], "steps 25 to 50 cannot be read"),
        ([0, 1, 0, 1], None, "step 25 cannot be read"),
        ([1, 0, 0, 1], None, None),
        ([0, 0, 0, 0], None, None),
        ([1, 1, 1, 1], None, None),
    ],
)
def test_a_start_out_of_equilibrium_is_described_with_the_fall_of_losses(settled, losses, words):
    run = xr.Dataset({"equilibrated": ("step", np.array(settled, dtype=float))}, coords={"step": [25, 50, 75, 100]})
    if losses is not None:
        run["group_loss"] = (("step", "group"), np.stack([losses, losses], axis=1))
    assert unread_start(run) == words
