from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.sweep.data import sweep_data
from stagewise.sweep.estimate import describe_cost, estimate, matrix_parameters
from tests.sweep.tiny import FAMILIES, SGLD, model, tiny_config, tokenizer


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_operations_of_a_token_are_twice_the_weights_it_is_multiplied_by(family):
    """Against torch's own count, which has attention scores too, and no biases: a few per cent at this size."""
    it = model(family)
    ids = torch.zeros(4, 16, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    with counter:
        causal_lm_loss(it, ids)
    assert 0.95 < counter.get_total_flops() / (2 * matrix_parameters(it) * ids.numel()) < 1.2


def test_steps_and_tokens_are_counted(tmp_path):
    sgld = replace(SGLD, num_burnin_steps=5, num_steps_bw_draws=2)
    config = tiny_config(tmp_path, "any", sgld=sgld)
    data, it = sweep_data(config, tokenizer()), model()
    cost = estimate(config, data, it)
    assert (cost.gradients, cost.gradient_tokens) == (2 * (5 + 3 * 2), 4 * 16)
    assert (cost.records, cost.record_tokens) == (2 * 3, 4 * 16)
    assert cost.parameters == sum(parameter.numel() for parameter in it.parameters())
    assert cost.flops == matrix_parameters(it) * 64 * (6 * 22 + 2 * 6)
    assert cost.seconds > 0
    assert all(parameter.grad is None for parameter in it.parameters())
    twice = estimate(tiny_config(tmp_path, "any", sgld=replace(sgld, drift="tilted")), data, it)
    assert twice.gradients == 2 * cost.gradients


def test_the_hours_of_all_cells_are_shared_by_the_processes(tmp_path):
    config = tiny_config(tmp_path, "any", num_workers=2)
    cost = replace(estimate(config, sweep_data(config, tokenizer()), model()), seconds=1800.0)
    words = describe_cost(cost, 6, config)
    assert "about 1.8e+03 s a cell" in words
    assert "1.50 hours in all, at best, shared by 2 processes" in words
    assert "3.00 hours in all;" in describe_cost(cost, 6, replace(config, num_workers=1))
    compiled = replace(config, sgld=replace(config.sgld, engine="compiled"))
    assert "compiling (once for each process and cell)" in describe_cost(cost, 6, compiled)
    assert "compiling" not in words
    shared = describe_cost(cost, 6, replace(config, num_workers=1), num_ranks=2)
    assert "1.50 hours in all, at best, the chains of each shared by 2 processes" in shared
