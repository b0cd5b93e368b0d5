"""Samples are ranked by name at the last probe in equilibrium, with intervals and what chance does."""

import re

import numpy as np
import pytest
import xarray as xr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from stagewise.reporting import tags
from stagewise.reporting.html.blocks import Text, inline
from stagewise.reporting.html.sample_section import samples_section
from stagewise.reporting.sample_tables import NEEDED, no_ranking_words, sample_tables, token_unit
from stagewise.reporting.sample_text import write_sample_text
from stagewise.runs.open import open_run
from stagewise.runs.samples_file import samples_dataset, write_samples
from stagewise.runs.top_samples import top_samples
from tests.runs.full_run import write_full_run

EVIL = "<img src=x onerror=alert(1)> | `**a** *b* [c](d) & \\"


@pytest.fixture
def run(tmp_path):
    folder = write_full_run(tmp_path)
    write_samples(folder, samples_dataset([f"{EVIL}{row}" for row in range(8)], "text", {}))
    return open_run(folder)


def settled(run, *equilibrated):
    return run.assign(equilibrated=("step", list(equilibrated)), reference_equilibrated=("step", [1.0, 1.0, 1.0]))


def test_the_last_probe_in_equilibrium_is_told_of(run):
    found = sample_tables(settled(run, 1, 1, 0))
    assert found.step == 20
    assert "At step 20, the last probe in equilibrium" in found.words
    top = top_samples(settled(run, 1, 1, 0), 20, 5).sel(side="helpful", rank=0)
    row = found.pairs[1]
    assert row[0] == ("helpful" if float(top["high"]) < 0 else "unresolved (helpful side)")
    assert str(inline(row[3])).startswith(f"sample {int(top['sample'])} “&lt;img")
    assert f"” and sample {int(top['sample_j'])} “&lt;img" in str(inline(row[3]))
    assert row[1:3] == (f"{float(top['value']):+.2e}", f"{float(top['low']):+.2e} to {float(top['high']):+.2e}")
    assert len(found.samples) > 2


def test_chance_is_told_beside_the_extremes(run):
    run = settled(run, 1, 1, 1)
    matrix, error = (run[name].sel(step=40).values for name in ("bif_within", "bif_within_se"))
    half = error * 4.302653  # of Student's t, two degrees of freedom
    outside = sum(abs(matrix[i, j]) > half[i, j] for i in range(8) for j in range(i + 1, 8))
    words = sample_tables(run).words
    assert f"Of 28 pairs, {outside} have a 95 % interval without zero; about 1 would by chance" in words
    assert "chance alone produces some of them" in words


def test_texts_of_samples_are_shown_and_never_obeyed(run):
    found = sample_tables(settled(run, 1, 1, 1))
    assert "<img" not in found.markdown()
    lines = [item for item in found.markdown().splitlines() if re.match(r"\| (helpful|unresolved \(he)", item)]
    assert len(lines) == sum("helpful" in row[0] for row in (*found.samples, *found.pairs))
    for line in lines:
        assert len(line.replace("\\\\", "").replace("\\|", "").split("|")) == 6
    for row in found.pairs[1:]:
        assert "<img" not in str(inline(row[3]))
        assert "<strong>" not in str(inline(row[3]))
    assert isinstance(samples_section(settled(run, 1, 1, 1)).blocks[0], Text)


def test_without_equilibrium_or_matrices_there_is_a_reason_and_no_ranking(run):
    assert sample_tables(settled(run, 0, 0, 0)) is None
    assert "in equilibrium" in no_ranking_words(run)
    assert not samples_section(settled(run, 0, 0, 0)).blocks
    bare = settled(run, 1, 1, 1).drop_vars(["bif_within", "bif_within_se"])
    assert sample_tables(bare).pairs == ()
    assert sample_tables(bare).samples
    none = bare.drop_vars(["sample_bif", "sample_bif_se"])
    assert sample_tables(none) is None
    assert "probe.sample_matrices: within" in no_ranking_words(none)
    earlier = settled(run, 1, 1, 1).drop_vars(["sample_bif", "sample_bif_se", "sample_words"])
    assert sample_tables(earlier).samples == ()
    assert re.fullmatch(r"sample \d and sample \d of the observed set", sample_tables(earlier).pairs[1][3])


def test_numbers_are_those_of_the_set_as_it_was_given(run):
    part = settled(run, 1, 1, 1).isel(sample=slice(2, 8), sample_j=slice(2, 8))
    part = part.assign_coords(sample=np.arange(12, 18), sample_j=np.arange(12, 18)).drop_vars("sample_words")
    told = {int(row[3].split()[1]) for row in sample_tables(part).samples[1:]}
    assert told <= set(range(12, 18))
    assert told


def test_tensorboard_gets_the_tables_of_a_run_in_equilibrium_alone(tmp_path):
    run = open_run(write_full_run(tmp_path), variables=NEEDED)
    for name, equilibrated in (("no", 0), ("yes", 1)):
        with SummaryWriter(str(tmp_path / name)) as writer:
            write_sample_text([writer], settled(run, equilibrated, equilibrated, equilibrated), 40)
        read = EventAccumulator(str(tmp_path / name), size_guidance={"tensors": 0}).Reload()
        assert read.Tags()["tensors"] == ([f"{tags.SAMPLES}/text_summary"] if equilibrated else [])


def test_where_no_sample_harms_the_table_says_so_and_names_the_common_mode(run):
    run = settled(run, 1, 1, 1)
    both = {name: -abs(run[name]) for name in ("bif_within", "sample_bif")}
    found = sample_tables(run.assign(both))
    for rows, what in ((found.samples, "sample"), (found.pairs, "pair")):
        assert [re.search("helpful|harmful", row[0])[0] for row in rows[1:]] == ["helpful"] * 5 + ["harmful"]
        assert rows[-1][1:] == ("-", "-", f"no harmful {what} at this probe")
    assert any("28 of 28 pairs of samples are helpful" in note for note in found.notes)
    assert "common mode" in found.markdown()
    texts = [block.words for block in samples_section(run.assign(both)).blocks if isinstance(block, Text)]
    assert texts == [found.words, *found.notes]
    other = sample_tables(run.assign({name: abs(run[name]) for name in both}))
    assert other.samples[1][1:] == ("-", "-", "no helpful sample at this probe")
    assert all("harmful" in row[0] for row in other.samples[2:])


def test_what_is_not_told_from_zero_is_neither_helpful_nor_harmful(run):
    run = settled(run, 1, 1, 1)
    values = np.array([-9.0, -8.0, -0.1, -0.05, 0.2, 7.0, 6.0, 0.3])
    errors = np.full(8, 1.0)  # half an interval is 4.30 of it, Student's t with two degrees of freedom
    run["sample_bif"].loc[{"step": 40, "part": "within"}] = values
    run["sample_bif_se"].loc[{"step": 40, "part": "within"}] = errors
    labels = {int(row[3].split()[1]): row[0] for row in sample_tables(run).samples[1:]}
    helpful, harmful, unsure = "helpful", "harmful", "unresolved ({} side)"
    assert labels == {
        0: helpful, 1: helpful, 2: unsure.format(helpful), 3: unsure.format(helpful),
        4: unsure.format(harmful), 5: harmful, 6: harmful, 7: unsure.format(harmful),
    }  # fmt: skip
    assert "*Unresolved*: not told from zero" in sample_tables(run).words


def test_of_token_losses_the_unit_is_told(run):
    assert "sum over its tokens** (3 to 4), not their mean" in token_unit(run.sel(step=40))
    mask = np.ones((3, 8, 5), dtype=bool)
    mask[:, 0, 2:] = False
    some = run.drop_vars("mask", errors="ignore").drop_dims("token", errors="ignore")
    told = token_unit(some.assign(mask=(("step", "sample", "token"), mask)).sel(step=40))
    assert "sum over its tokens** (2 to 5), not their mean" in told
    told = token_unit(some.assign(mask=(("step", "sample", "token"), np.ones((3, 8, 5), dtype=bool))).sel(step=40))
    assert "(5 each)" in told
    assert token_unit(some.assign(mask=(("step", "sample"), np.ones((3, 8), dtype=bool))).sel(step=40)) is None
    assert token_unit(xr.Dataset()) is None
