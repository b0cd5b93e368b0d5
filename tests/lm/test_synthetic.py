import pytest
import torch

from stagewise.errors import InputError
from stagewise.lm.synthetic import BigramChain, repeated_segments
from stagewise.lm.tokens import induction_targets
from stagewise.loading.order import seeded


def test_rows_of_the_chain_are_probabilities_with_the_asked_successors():
    chain = BigramChain(20, num_successors=3, unigram_fraction=0.0)
    torch.testing.assert_close(chain.transition.sum(1), torch.ones(20, dtype=torch.float64))
    assert ((chain.transition > 0).sum(1) == 3).all()
    ratios = chain.transition.sort(descending=True).values[:, :3] * (1 + 1 / 2 + 1 / 3)
    torch.testing.assert_close(ratios, torch.tensor([1, 1 / 2, 1 / 3], dtype=torch.float64).expand(20, 3))


def test_sampled_transitions_follow_the_table():
    chain = BigramChain(10, num_successors=4, unigram_fraction=0.2)
    ids = chain.sample(20_000, 12, seeded(3))
    pairs = torch.zeros(10, 10, dtype=torch.float64)
    pairs.index_put_((ids[:, :-1].flatten(), ids[:, 1:].flatten()), torch.ones(20_000 * 11).double(), accumulate=True)
    assert (pairs / pairs.sum(1, keepdim=True) - chain.transition).abs().max() < 0.02
    first = torch.bincount(ids[:, 0], minlength=10) / 20_000
    assert (first - chain.unigram).abs().max() < 0.02


def test_the_table_depends_on_its_own_seed_alone():
    assert torch.equal(BigramChain(table_seed=1).transition, BigramChain(table_seed=1).transition)
    assert not torch.equal(BigramChain(table_seed=1).transition, BigramChain(table_seed=2).transition)


def test_draws_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    BigramChain().sample(4, 8, seeded(0))
    repeated_segments(4, 32, seeded(0))
    assert torch.equal(before, torch.get_rng_state())


def test_segments_repeat_to_the_end_of_the_context():
    drawn = repeated_segments(500, 32, seeded(0))
    assert drawn.segment_length.min() == 4
    assert drawn.segment_length.max() == 16
    for row, length in zip(drawn.ids, drawn.segment_length.tolist(), strict=True):
        assert torch.equal(row[length:], row[:-length])


def test_exact_targets_are_predicted_by_an_earlier_copy_and_only_chance_adds_more():
    drawn = repeated_segments(500, 32, seeded(1), vocab_size=10_000)
    # A large vocabulary leaves no chance matches: the definition over tokens is then the exact knowledge.
    assert torch.equal(drawn.targets, induction_targets(drawn.ids))
    small = repeated_segments(500, 32, seeded(1), vocab_size=8)
    assert (induction_targets(small.ids) | ~small.targets).all()


@pytest.mark.parametrize(("low", "high", "length"), [(4, 16, 16), (0, 4, 32), (9, 4, 32)])
def test_segments_that_do_not_fit_are_refused(low, high, length):
    with pytest.raises(InputError, match="expected"):
        repeated_segments(1, length, seeded(0), min_segment=low, max_segment=high)


def test_bad_settings_of_the_chain_are_refused():
    for settings in ({"vocab_size": 1}, {"num_successors": 65}, {"unigram_fraction": 1.5}, {"table_seed": -1}):
        with pytest.raises(InputError, match="expected"):
            BigramChain(**settings)
