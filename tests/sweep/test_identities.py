import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stagewise.errors import InputError
from stagewise.sweep.cell import is_finished
from stagewise.sweep.config import CircuitSettings
from stagewise.sweep.study import prepare_sweep, run_cells
from tests.sweep.tiny import save_checkpoints, tiny_config


def silent(_: str) -> None:
    pass


def test_checkpoints_whose_files_have_changed_are_not_mixed_with_cells_of_the_old_ones(checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoints, folder)
    config = tiny_config(tmp_path, folder, steps=[1, 2], circuits=CircuitSettings(enabled=False))
    run_cells(prepare_sweep(config), silent)
    save_checkpoints(folder, steps=[2, 4], family="gpt_neox")
    with pytest.raises(InputError, match="got checkpoint step2 at step 2, whose files are not those that"):
        run_cells(prepare_sweep(replace(config, steps=[1, 2, 4])), silent)
    assert not is_finished(Path(config.output), 4, "all")
    with pytest.raises(InputError, match="got checkpoint step2"):  # also where no cell is missing
        run_cells(prepare_sweep(config), silent)
    # Those that have not changed go on.
    lines: list[str] = []
    run_cells(prepare_sweep(replace(config, steps=[1, 4])), lines.append)
    assert lines[0] == "1 of 2 cells are there already"
