import pytest
import torch

from stagewise.lm.attention import look
from stagewise.lm.induction import icl_score, loss_gap, prefix_matching, repeated_random
from stagewise.sweep.circuits import SCORES, TABLES, measure_circuits
from stagewise.sweep.config import CircuitSettings
from tests.sweep.tiny import VOCAB, model

SETTINGS = CircuitSettings(num_sequences=3, segment_length=5, copies=3, seed=2)


@pytest.mark.parametrize("bos", [None, 1])
def test_scores_are_those_of_the_functions_on_the_same_sequences(bos):
    it = model().eval()
    found = measure_circuits(it, SETTINGS, bos_token_id=bos)
    ids, length = repeated_random(3, vocab_size=VOCAB, context=32, segment_length=5, copies=3, bos_token_id=bos, seed=2)
    seen = look(it, ids)
    assert set(found.tables) == set(TABLES)
    torch.testing.assert_close(
        torch.tensor(found.tables["prefix_matching"]), prefix_matching(seen.attention, ids), check_dtype=False
    )
    assert found.scores["icl_score"] == pytest.approx(icl_score(seen.losses).item())
    assert found.scores["loss_gap"] == pytest.approx(loss_gap(seen.losses, length, bos=bos is not None).item())
    assert set(found.scores) == set(SCORES)


def test_a_model_that_shows_no_attention_has_a_note_instead():
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "mamba", vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, state_size=4, expand=2
    )
    found = measure_circuits(AutoModelForCausalLM.from_config(config), SETTINGS)
    assert not found.tables
    assert "returns no attention weights" in found.note


def test_a_context_that_is_too_short_has_a_note():
    found = measure_circuits(model(max_position_embeddings=4), SETTINGS)
    assert "lengthen the context or lower copies" in found.note


def test_weights_that_are_not_finite_have_no_scores():
    it = model()
    with torch.no_grad():
        next(it.parameters()).fill_(torch.nan)
    found = measure_circuits(it, SETTINGS)
    assert {value for row in found.tables["copying"] for value in row} == {None}
    assert set(found.scores.values()) == {None}
