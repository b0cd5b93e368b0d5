"""The report is whole, with and without most arms."""

import pytest

from stagewise.studies.intervention.report import write_report
from stagewise.studies.intervention.results import write_results
from tests.studies.intervention.fake_cells import config_of, fake_cell
from tests.studies.intervention.test_results import SEEDS, cells


@pytest.mark.drawn
def test_report_names_every_figure_it_writes(tmp_path):
    config = config_of(SEEDS, output=str(tmp_path))
    found = write_results(tmp_path, config, cells())
    text = write_report(tmp_path, config, cells(), found).read_text()
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {"acceleration.png", "sweep.png", "curves.png", "costs.png"}
    assert all(f"figures/{name}" in text for name in written)


def test_single_seed_and_a_cell_not_run(tmp_path):
    some = [fake_cell(1, "none", 600), fake_cell(1, "inside", None, run=False, note="no onset")]
    config = config_of([1], output=str(tmp_path))
    found = write_results(tmp_path, config, some)
    assert "seed 1: no onset" in write_report(tmp_path, config, some, found).read_text()
