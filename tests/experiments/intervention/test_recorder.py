from pathlib import Path

import pytest

from stagewise.experiments.intervention.recorder import branch_point


@pytest.fixture
def folder(tmp_path):
    for name in ("50.ckpt", "100.ckpt", "1000.ckpt", "last.ckpt", "75.txt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0), (49, 0), (50, 50), (99, 50), (100, 100), (999, 100), (2000, 1000)]
)
def test_runs_branch_from_the_last_checkpoint_at_or_before_a_step(folder, step, expected):
    path, at = branch_point(folder, step)
    assert at == expected
    assert path == (folder / f"{expected}.ckpt" if expected else None)


def test_without_checkpoints_runs_start_from_the_beginning():
    assert branch_point(Path("not/there"), 100) == (None, 0)
