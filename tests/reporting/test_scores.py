import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from stagewise.reporting.scores import Score, read_scores


def score(values, name="prefix_matching"):
    return Score(name, np.arange(len(values)) * 10, np.array(values, dtype=float))


def test_a_rise_is_from_a_quarter_to_three_quarters_of_the_way():
    assert score([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0]).rise() == (20, 50)


def test_a_score_that_hardly_rises_or_only_falls_has_no_rise():
    assert score([0.5, 0.52, 0.55]).rise() is None
    assert score([1.0, 0.5, 0.0]).rise() is None


def test_scores_are_read_from_the_event_files_of_a_run(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step, value in ((0, 0.1), (50, 0.4)):
            writer.add_scalar("induction/previous_token", value, step)
            writer.add_scalar("induction/loss_gap", -value, step)
            writer.add_scalar("train/loss", 1.0, step)
    found = read_scores(tmp_path)
    assert [it.name for it in found] == ["previous_token", "loss_gap"]
    assert found[0].steps.tolist() == [0, 50]
    assert found[0].values == pytest.approx([0.1, 0.4])


def test_the_table_of_a_sweep_gives_the_best_head_and_the_copying_score_of_the_inducing_one(tmp_path):
    (tmp_path / "circuits.csv").write_text(
        "step,layer,head,prefix_matching,previous_token,copying,icl_score,loss_gap\n"
        "1,0,0,0.1,0.9,0.7,-0.1,-0.2\n"
        "1,0,1,0.3,0.2,0.4,-0.1,-0.2\n"
        "8,0,0,0.2,0.8,0.1,-0.3,\n"
        "8,0,1,,0.1,0.9,-0.3,\n"
    )
    found = {it.name: it.values.tolist() for it in read_scores(tmp_path)}
    assert found == {
        "prefix_matching": [0.3, 0.2],
        "previous_token": [0.9, 0.8],
        "copying": [0.4, 0.1],
        "icl_score": [-0.1, -0.3],
        "loss_gap": [-0.2],
    }


def test_a_run_without_scores_has_none(tmp_path):
    assert read_scores(tmp_path) == []
