import pytest
import torch

from stagewise.errors import InputError
from stagewise.lm import induction
from stagewise.lm.attention import eager_attention, look
from stagewise.lm.module import build_model
from stagewise.losses.causal_lm import causal_lm_loss

SMALL = {
    "gpt_neox": {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "gpt2": {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "llama": {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
}
for _name in ("gpt_neox", "llama"):
    SMALL[_name] |= {"intermediate_size": 32, "max_position_embeddings": 32}


def _uniform(length):
    return torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]


def _prefix_by_loop(attention, ids):
    layers, _, heads, length, _ = attention.shape
    table = torch.zeros(layers, heads)
    for layer in range(layers):
        for head in range(heads):
            scores = []
            for b, row in enumerate(ids.tolist()):
                for k in range(length):
                    after = [j + 1 for j in range(k) if row[j] == row[k]]
                    if after:
                        scores.append(sum(attention[layer, b, head, k, j].item() for j in after))
            table[layer, head] = sum(scores) / len(scores)
    return table


def test_attention_to_the_token_after_the_earlier_copy_scores_one():
    ids, length = induction.repeated_random(3, vocab_size=30, context=24, segment_length=6, copies=4)
    attention = torch.zeros(1, 3, 1, 24, 24)
    for k in range(24):
        attention[..., k, k - length + 1 if k >= length else 0] = 1.0
    assert induction.prefix_matching(attention, ids).item() == pytest.approx(1.0)


def test_uniform_attention_has_its_closed_form():
    ids, length = induction.repeated_random(2, vocab_size=30, context=24, segment_length=6, copies=4)
    attention = _uniform(24).expand(2, 2, 3, 24, 24)
    expected = sum((k // length) / (k + 1) for k in range(length, 24)) / (24 - length)
    torch.testing.assert_close(induction.prefix_matching(attention, ids), torch.full((2, 3), expected))
    expected = sum(1 / (k + 1) for k in range(1, 24)) / 23
    torch.testing.assert_close(induction.previous_token(attention), torch.full((2, 3), expected))


def test_prefix_matching_equals_a_plain_loop_on_any_tokens():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, (4, 11), generator=generator)
    attention = torch.rand(2, 4, 3, 11, 11, generator=generator).tril()
    torch.testing.assert_close(induction.prefix_matching(attention, ids), _prefix_by_loop(attention, ids))


def test_attention_to_the_token_before_scores_one():
    attention = torch.zeros(1, 2, 1, 9, 9)
    for k in range(1, 9):
        attention[..., k, k - 1] = 1.0
    assert induction.previous_token(attention).item() == 1.0


def test_a_copier_has_the_negative_gap_of_what_it_saves():
    losses = torch.full((2, 31), 3.0)
    losses[:, 8:] = 0.5
    assert induction.loss_gap(losses, 8).item() == pytest.approx(-2.5)
    assert induction.icl_score(losses).item() == pytest.approx(-2.5)
    with_bos = torch.full((2, 32), 3.0)
    with_bos[:, 9:] = 0.5
    assert induction.loss_gap(with_bos, 8, bos=True).item() == pytest.approx(-2.5)


def test_the_gap_leaves_out_the_first_token_of_both_copies():
    losses = torch.zeros(1, 31)
    losses[:, 7] = 100.0  # target: first token of the second copy
    losses[:, 15:] = 100.0  # third and fourth copies
    assert induction.loss_gap(losses, 8).item() == 0.0


def test_icl_windows_are_the_stated_ones():
    early, late = induction.icl_windows(31)
    tokens = torch.arange(1, 32)
    assert tokens[early].tolist() == [4, 5, 6, 7]
    assert tokens[late].tolist() == [28, 29, 30, 31]


def test_probe_sequences_repeat_and_shorten_to_the_context():
    ids, length = induction.repeated_random(5, vocab_size=64, context=32)
    assert (length, ids.shape) == (8, (5, 32))
    assert torch.equal(ids[:, 8:], ids[:, :-8])
    assert all(len(set(row[:8].tolist())) == 8 for row in ids)
    ids, length = induction.repeated_random(5, vocab_size=64, context=512, bos_token_id=0)
    assert (length, ids.shape) == (25, (5, 101))
    assert (ids[:, 0] == 0).all()
    assert (ids[:, 1:] != 0).all()


def test_impossible_probe_sequences_are_refused():
    with pytest.raises(InputError, match="expected at least"):
        induction.repeated_random(5, vocab_size=64, context=6)
    with pytest.raises(InputError, match="two copies"):
        induction.loss_gap(torch.zeros(2, 10), 8)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_attention_is_read_from_each_architecture_and_its_implementation_restored(kind):
    model = build_model(kind, config=SMALL[kind]).eval()
    before = model.config._attn_implementation
    ids, length = induction.repeated_random(2, vocab_size=40, context=32)
    seen = look(model, ids)
    assert seen.attention.shape == (2, 2, 2, 32, 32)
    torch.testing.assert_close(seen.attention.sum(-1), torch.ones(2, 2, 2, 32))
    assert (seen.attention.triu(1) == 0).all()
    torch.testing.assert_close(seen.losses, causal_lm_loss(model, ids)[0].detach(), atol=1e-5, rtol=1e-5)
    scores, tables = induction.induction_scores(model, ids, length)
    assert scores["prefix_matching"] == tables["prefix_matching"].max().item()
    assert model.config._attn_implementation == before
    with pytest.raises(RuntimeError), eager_attention(model):
        raise RuntimeError
    assert model.config._attn_implementation == before
