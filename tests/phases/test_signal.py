"""Signals read probe by probe against the table of the finished run, and by name."""

import numpy as np
import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.files.zarr_file import read_content
from stagewise.phases.signal import Kind, Signal
from stagewise.phases.signal_table import signal_table
from stagewise.runs.open import open_run
from tests.phases.synthetic_run import STEPS, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def probes(folder):
    """The files of the run, one data set each."""
    return [read_content(folder / "influence.zarr" / f"step{step}.zip").dataset() for step in STEPS]


@pytest.fixture(scope="module")
def table(folder):
    pairs = [(one, other) for one in ("early", "late") for other in ("early", "late")]
    return signal_table(open_run(folder), pairs, contrasts=[("early", "late"), ("late", "early")])


NAMES = [
    *("between", "losses_alone", "group_losses_alone", "chain_share", "llc", "llc/early", "llc/late"),
    *("group_loss/early", "group_loss/late", "contrast/early~late", "contrast/late~early"),
    *(f"{part}/{a}~{b}" for part in ("within", "total") for a in ("early", "late") for b in ("early", "late")),
]
SIGNALS = [Signal.parse(name) for name in NAMES]


@pytest.mark.parametrize("signal", SIGNALS, ids=str)
def test_live_values_are_those_of_the_table(probes, table, signal):
    row = table.sel(signal=signal.name)
    earlier, values, errors = {}, [], []
    for probe in probes:
        value, error = signal.read(probe, earlier)
        values.append(float(value))
        errors.append(float(error))
        earlier = signal.remember(earlier, probe)
    np.testing.assert_array_equal(values, row["value"])
    np.testing.assert_array_equal(errors, row["error"])
    assert np.isfinite(values).sum() > 30
    assert str(signal.direction) == row["direction"].item()
    assert signal.unit == row["units"].item()
    assert len(earlier) < len(STEPS) / 2
    assert bool(earlier) == signal.is_change


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_has_the_name_that_it_is_parsed_from(name):
    assert Signal.parse(name, ["early", "late"]) == Signal.parse(name)
    assert Signal.parse(name).name == name


def test_signals_of_all_kinds_are_read():
    assert {signal.kind for signal in SIGNALS} == set(Kind)


def test_names_of_groups_of_earlier_versions_may_hold_what_parts_names():
    groups = ["a~b", "c/d", "c"]
    assert Signal.parse("within/a~b~c", groups).groups == ("a~b", "c")
    assert Signal.parse("total/c~a~b", groups).groups == ("c", "a~b")
    assert Signal.parse("group_loss/c/d", groups).groups == ("c/d",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("betwen", "did you mean 'between'"),
        ("contrats/early~late", "did you mean 'contrast/early~late'"),
        ("within/early~lat", "did you mean 'within/early~late'"),
        ("contrast/early", "name one of these"),
        ("between/early", "did you mean 'between'"),
        ("llc/", "did you mean 'llc'"),
        ("contrast/~", "name one of these"),
        ("within/cats~cats", "name one of these"),
        ("", "name one of these"),
        (3, "name one of these"),
    ],
)
def test_unknown_names_are_refused_with_those_there_are_and_the_nearest(name, words):
    with pytest.raises(InputError, match=r"expected one of between, losses_alone, .*contrast/A~B.*'late'") as caught:
        Signal.parse(name, ["early", "late"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_chosen_kinds_can_be_asked_for():
    with pytest.raises(InputError, match=r"got live\.signal 'llc'; expected one of between, total/A~B, with groups"):
        Signal.parse("llc", kinds=(Kind.between, Kind.total), setting="live.signal")


@pytest.mark.parametrize(
    ("kind", "groups"), [("between", ["a"]), ("contrast", ["a"]), ("contrast", ["a", "a"]), ("llc", ["a", "b"])]
)
def test_signals_of_other_groups_than_the_kind_has_are_refused(kind, groups):
    with pytest.raises(InputError, match="got groups"):
        Signal(kind, groups)


def test_signals_that_a_probe_does_not_have_are_refused_by_name(folder):
    probe = read_content(folder / "influence.zarr" / "step50.zip").dataset()
    with pytest.raises(InputError, match=r"got signal 'within/cats~cats'; expected one of"):
        Signal.parse("within/cats~cats").read(probe)
    with pytest.raises(InputError, match=r"set probe\.llc\.enabled to true"):
        Signal.parse("llc/early").read(probe.drop_vars(["llc", "group_llc", "llc_se", "group_llc_se"]))
    with pytest.raises(InputError, match="no chain_share"):
        Signal.parse("chain_share").read(probe.drop_vars("chain_share"))


def test_a_change_is_unknown_while_samples_were_left_out_since_the_reference_live_and_in_a_run():
    losses = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 1.0], [1.0, np.nan, 0.0]])
    steps, references = [1, 2, 3], [1, 1, 2]
    run = xr.Dataset(
        {"anchor_loss": (("step", "sample"), losses)},
        coords={"step": steps, "reference_step": ("step", references)},
    )
    signal = Signal(Kind.losses_alone)
    np.testing.assert_array_equal(signal.read(run).value, [np.nan, np.nan, 0.5])
    earlier, live = {}, []
    for row, step, reference in zip(losses, steps, references, strict=True):
        probe = xr.Dataset({"anchor_loss": ("sample", row[np.isfinite(row)])})
        probe.attrs = {"step": step, "reference_step": reference}
        live.append(float(signal.read(probe, earlier).value))
        earlier = signal.remember(earlier, probe)
    np.testing.assert_array_equal(live, [np.nan, np.nan, 0.5])
