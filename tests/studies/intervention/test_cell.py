import json
from dataclasses import replace

import pytest

from stagewise.errors import InputError
from stagewise.studies.intervention.cell import Cell, cell_path, read_cell, write_cell
from stagewise.studies.intervention.outcomes import Ablation, Curve


def cell(**changed):
    given = {
        "seed": 3,
        "arm": "inside",
        "mechanism": "sampling",
        "windows": ((10, 20),),
        "note": "",
        "max_steps": 40,
        "end": 10,
        "curve": Curve((0, 10), (0.1, 0.6), (0.0, -2.0)),
        "final_losses": {"induction": 0.1 + 0.2, "background": 2.0},
        "ablation": Ablation(1, 0, 0.3, 2.0),
        "moved": 3.2,
        "branched_at": 10,
        "seconds": 1.5,
        "timeline": {"onset": None, "peak": 20},
    }
    return Cell(**{**given, **changed})


@pytest.mark.parametrize("changed", [{}, {"curve": None, "ablation": None, "windows": (), "note": "no onset"}])
def test_a_cell_is_read_as_it_was_written(tmp_path, changed):
    written = cell(**changed)
    write_cell(tmp_path, written)
    assert read_cell(tmp_path, 3, "inside") == written


def test_a_cell_of_a_version_that_knew_one_threshold_has_that(tmp_path):
    path = write_cell(tmp_path, cell())
    content = json.loads(path.read_text())
    content["curve"] = {name: content["curve"][name] for name in ("steps", "prefix_matching", "loss_gap")}
    path.write_text(json.dumps(content))
    assert read_cell(tmp_path, 3, "inside") == cell()


def test_thresholds_are_kept_with_the_curve_and_looked_at(tmp_path):
    lower = replace(cell().curve, score_threshold=0.25, gap_threshold=0.4)
    path = write_cell(tmp_path, cell(curve=lower))
    assert read_cell(tmp_path, 3, "inside").curve == lower
    path.write_text(path.read_text().replace('"score_threshold": 0.25', '"score_threshold": "low"'))
    with pytest.raises(InputError, match=r"inside\.json.*score_threshold"):
        read_cell(tmp_path, 3, "inside")


def test_arms_under_loss_weights_have_cells_of_their_own(tmp_path):
    write_cell(tmp_path, cell())
    write_cell(tmp_path, cell(mechanism="loss", moved=9.0))
    assert read_cell(tmp_path, 3, "inside").moved == 3.2
    assert read_cell(tmp_path, 3, "inside_loss").moved == 9.0


def test_a_cell_that_is_not_there_is_none(tmp_path):
    assert read_cell(tmp_path, 3, "inside") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "1", "seed": 3}'])
def test_a_file_that_is_no_cell_is_named(tmp_path, text):
    path = cell_path(tmp_path, 3, "inside")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=r"inside\.json.*delete it"):
        read_cell(tmp_path, 3, "inside")


def test_a_cell_is_plain_json(tmp_path):
    content = json.loads(write_cell(tmp_path, cell()).read_text())
    assert content["curve"]["prefix_matching"] == [0.1, 0.6]
    assert content["windows"] == [[10, 20]]
