import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from stagewise.lm.induction import induction_scores, repeated_random
from stagewise.lm.module import build_model
from stagewise.reporting.scores import INDUCING, Score, copying_of_induction_heads, read_scores


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
    assert [item.name for item in found] == ["previous_token", "loss_gap"]
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
    found = {read_score.name: read_score.values.tolist() for read_score in read_scores(tmp_path)}
    assert found == {
        "prefix_matching": [0.3, 0.2],
        "previous_token": [0.9, 0.8],
        "copying": [0.4, 0.1],
        "icl_score": [-0.1, -0.3],
        "loss_gap": [-0.2],
    }


def test_a_run_without_scores_has_none(tmp_path):
    assert read_scores(tmp_path) == []


def test_copying_counts_only_where_the_head_it_belongs_to_matches_prefixes():
    prefix, noise = score([0.05, 0.06, 0.2, 0.9]), score([0.7, -0.8, 0.1, 0.3], "copying")
    gap = score([-0.1, -0.2, -0.3, -0.4], "loss_gap")
    kept = copying_of_induction_heads([prefix, noise, gap])
    assert [item.name for item in kept] == ["prefix_matching", "copying", "loss_gap"]
    np.testing.assert_array_equal(kept[1].values, [np.nan, np.nan, 0.1, 0.3])
    assert kept[1].known().steps.tolist() == [20, 30]
    assert kept[0].values is prefix.values
    # Unknown prefix matching is none; without any there is nothing to tell by.
    assert [
        copying_of_induction_head.name
        for copying_of_induction_head in copying_of_induction_heads([score([0.1]), noise])
    ] == ["prefix_matching"]
    assert copying_of_induction_heads([noise])[0].values is noise.values


def test_a_rise_is_looked_for_among_what_is_known():
    assert score([np.nan, 0.0, 0.1, np.nan, 1.0]).rise() == (20, 40)
    assert score([np.nan, np.nan]).rise() is None


def test_the_copying_score_of_an_untrained_model_does_jump():
    """Its random weights have a score, of another head wherever attention is uniform but for noise."""
    found = set()
    for seed in range(6):
        torch.manual_seed(seed)
        config = {"vocab_size": 24, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
        model = build_model("gpt2", config=config).eval()
        ids, length = repeated_random(8, vocab_size=24, context=64, segment_length=16, copies=4)
        scores, _ = induction_scores(model, ids, length)
        found.add(round(scores["copying"], 2))
        assert scores["prefix_matching"] < INDUCING
    assert max(found) - min(found) > 0.3
