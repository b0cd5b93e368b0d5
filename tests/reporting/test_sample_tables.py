"""Samples are ranked by name at the last probe in equilibrium, with intervals and what chance does."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from stagewise.reporting import tags
from stagewise.reporting.html.blocks import Text, inline
from stagewise.reporting.html.sample_section import samples_section
from stagewise.reporting.sample_tables import NEEDED, no_ranking_words, sample_tables
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
    assert row[0] == "helpful"
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
    lines = [it for it in found.markdown().splitlines() if it.startswith("| he")]
    assert len(lines) == sum("helpful" in row for row in (*found.samples, *found.pairs))
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
    assert "of the observed set" in sample_tables(earlier).pairs[1][3]


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
