from pathlib import Path
from types import SimpleNamespace

import pytest

from stagewise.studies.intervention.outcomes import Curve
from stagewise.studies.intervention.recorder import Ending, branch_point


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


class Record:
    """A recorder whose head has formed at a step."""

    def __init__(self, formed, now):
        steps = tuple(range(0, now + 1, 10))
        there = [formed is not None and step >= formed for step in steps]
        self.curve = Curve(steps, tuple(0.9 * item for item in there), tuple(-2.0 * item for item in there))


def end_of(formed, *, given=None, max_steps=100, settle_steps=20):
    """Step at which a run is measured, and step at which it stops."""
    measured = []
    ending = Ending(None, lambda: measured.append(1), max_steps=max_steps, settle_steps=settle_steps, end=given)
    for step in range(10, max_steps + 1, 10):
        trainer = SimpleNamespace(global_step=step, should_stop=False)
        ending._recorder = Record(formed, step)
        ending.on_train_batch_end(trainer, None, None, None, 0)
        if trainer.should_stop:
            break
    assert len(measured) == 1
    return ending.end, step


@pytest.mark.parametrize(
    ("formed", "given", "expected"),
    [
        (30, None, (50, 50)),  # settled
        (90, None, (100, 100)),  # no time to settle
        (None, None, (100, 100)),  # no head
        (30, 50, (50, 50)),  # the end of another run
        (70, 50, (50, 70)),  # measured there, goes on until it has a head
        (None, 50, (50, 100)),
    ],
)
def test_runs_are_measured_at_their_end_and_stop_when_the_head_is_there(formed, given, expected):
    assert end_of(formed, given=given) == expected


def test_the_head_has_formed_when_both_score_and_gap_have():
    curve = Curve((0, 10, 20, 30), (0.1, 0.6, 0.6, 0.6), (0.0, 0.0, -2.0, -2.0))
    assert curve.formed_step == 20
    assert Curve((0, 10), (0.1, 0.6), (0.0, 0.0)).formed_step is None
