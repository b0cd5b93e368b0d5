import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stagewise.errors import InputError
from stagewise.influence.baselines import gradient_dot
from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws, Reducer
from stagewise.influence.group_influence import sample_influence
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.token_bif_sums import TokenSums
from stagewise.probes.config import ProbeConfig
from stagewise.probes.memory import ProbeSize, check_memory, gradient_memory, memory_needed
from stagewise.probes.references import MAX_CACHED
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.target import Target

GIB = 2**30
SIZES = {"num_samples": 64, "num_tokens": 511, "num_chains": 4, "num_draws": 100, "num_groups": 12}


def peak_of(run):
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(("chains", "num", "size"), [(4, 10, 200), (8, 10, 200), (16, 4, 150)])
def test_matrices_over_samples_take_what_is_stated(chains, num, size):
    draws = np.random.default_rng(0).normal(size=(2, chains, num, size))
    stated = memory_needed(ProbeSize(num_samples=size, num_chains=chains, num_draws=num))["sample x sample"] * GIB
    peak = peak_of(lambda: sample_influence(draws[0], draws[1]))
    assert peak <= stated <= 1.5 * peak


def test_reduced_draws_of_groups_and_bins_take_what_is_stated():
    """Beside the references, which are as many copies of the features as are kept."""
    size, tokens, chains, num = 20, 60, 4, 80
    generator = np.random.default_rng(0)
    present = np.ones((size, tokens), dtype=bool)
    groups = Groups({f"g{row}": generator.random((size, tokens)) < 0.4 for row in range(12)}, present)
    positions = Positions(groups, present, 8)

    def measure(bins):
        rows = generator.normal(size=(chains, num, 1 + 12 + (8 if bins else 0), size))
        past = GroupDraws.from_reduced(1, tuple(range(chains)), rows)

        def probe():
            features = GroupDraws.from_reduced(2, tuple(range(chains)), rows + 1.0)
            bif(features, past, groups, positions=positions if bins else None)

        return peak_of(probe)

    sizes = {"num_samples": size, "num_tokens": tokens, "num_chains": chains, "num_draws": num, "num_groups": 12}
    without, with_bins = memory_needed(ProbeSize(**sizes)), memory_needed(ProbeSize(**sizes, num_positions=8))
    kept = 8 * MAX_CACHED * chains * num * size
    own = without["group x group"] * GIB - 13 * kept
    assert measure(False) <= own <= 2.5 * measure(False)
    own = sum(with_bins[name] for name in ("group x group", "group x position")) * GIB - 21 * kept
    assert measure(True) <= own <= 2.5 * measure(True)
    masks = Reducer(positions.joint)._weights
    assert masks.numel() * masks.element_size() <= own


def test_token_sums_and_their_results_take_what_is_stated():
    sums = TokenSums([0, 2])
    for chain in range(3):
        for _ in range(4):
            sums(chain, torch.rand(3, 150))
    peak = peak_of(sums.influence)
    held = sum(chain._products.nbytes for chain in sums._chains.values())
    needed = memory_needed(ProbeSize(num_samples=3, num_tokens=150, num_chains=3, num_draws=4, num_token_samples=2))
    assert peak + held <= needed["token x token"] * GIB <= 1.5 * (peak + held)


def test_a_trace_is_stated_in_both_precisions_and_only_where_it_is_kept():
    whole, reduced = memory_needed(ProbeSize(**SIZES)), memory_needed(ProbeSize(**SIZES, save_trace=False))
    assert whole["trace"] * GIB == 12 * 400 * 64 * 511
    assert reduced["trace"] * GIB == 12 * 400 * 64
    assert set(whole) == {"trace", "sample x sample", "group x group"}
    assert sum(reduced.values()) < 0.1


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"save_trace": True}, "trace .*; set save_trace to false"),
        ({}, "group x group .*; observe fewer"),
        ({"position_bins": 64}, "group x position .*; ask for fewer position_bins"),
        ({"token_samples": [0, 1, 2, 3]}, "token x token .*; choose fewer token_samples"),
    ],
)
def test_what_needs_most_is_named_and_the_way_out_is_its_own(settings, advice):
    sgld = SGLDConfig(num_chains=4, num_draws=100)
    with pytest.raises(InputError, match=rf"needs about .* GiB \({advice}.*, or raise the limit"):
        check_memory(ProbeConfig(memory_limit_gib=0.01, **settings), sgld, loss_shape=(64, 511), num_groups=12)
    check_memory(ProbeConfig(**settings), sgld, loss_shape=(64, 511), num_groups=12)


def test_many_samples_without_tokens_are_refused_for_their_matrices():
    with pytest.raises(InputError, match=r"sample x sample .*; observe fewer samples"):
        check_memory(ProbeConfig(), SGLDConfig(), loss_shape=(20_000,), num_groups=1)


@pytest.mark.parametrize("settings", [{"position_bins": 4}, {"position_bins": [0, 3]}, {"token_samples": [0]}])
def test_products_of_tokens_need_tokens(settings):
    with pytest.raises(InputError, match=r"expected losses \[sample, token\]"):
        check_memory(ProbeConfig(**settings), SGLDConfig(), loss_shape=(64,), num_groups=1)


def test_samples_that_are_not_observed_cannot_be_chosen():
    with pytest.raises(InputError, match="positions below 64"):
        check_memory(ProbeConfig(token_samples=[3, 64]), SGLDConfig(), loss_shape=(64, 8), num_groups=1)


def test_what_comes_from_other_processes_is_stated_with_the_share_of_one():
    chosen = {**SIZES, "num_token_samples": 1}
    alone, two, four = (memory_needed(ProbeSize(**chosen, num_processes=number)) for number in (1, 2, 4))
    share = 8 * 511**2 / GIB
    assert two["token x token"] - alone["token x token"] == pytest.approx(3 * 2 * share)
    assert four["token x token"] - alone["token x token"] == pytest.approx(3 * 1 * share)
    assert two["trace"] - alone["trace"] == pytest.approx(3 * 2 * 4 * 100 * 64 * 511 / GIB)
    assert two["sample x sample"] == alone["sample x sample"]


def test_gradients_of_groups_get_what_the_rest_leaves_and_are_cut_into_blocks_of_that():
    sizes = {"num_groups": 10, "num_weights": 10**7}
    whole = 2 * 4 * 10 * 10**7 / GIB
    assert gradient_memory(ProbeConfig(), 1.0, **sizes) == (None, pytest.approx(whole))
    assert gradient_memory(ProbeConfig(), 1.0, **sizes, weight_bytes=8) == (None, pytest.approx(2 * whole))
    block, gib = gradient_memory(ProbeConfig(memory_limit_gib=1.0), 0.6, **sizes)
    assert block == int(0.4 * GIB / 80)
    assert gib == pytest.approx(0.4)
    _, least = gradient_memory(ProbeConfig(memory_limit_gib=1.0), 0.99, **sizes)
    assert least == pytest.approx(1 / 16)
    assert gradient_memory(ProbeConfig(gradient_dot=False), 1.0, **sizes) == (None, 0.0)


def test_gradient_products_hold_what_is_stated():
    module = torch.nn.Sequential(torch.nn.Linear(400, 1000), torch.nn.Linear(1000, 400))
    batch = torch.randn(4, 400)
    groups = Groups({f"g{row}": np.arange(4) != row % 4 for row in range(12)}, np.ones(4, dtype=bool))
    weights = sum(weight.numel() for weight in module.parameters())

    def largest(block):
        """Bytes of the largest tensor that is made in one piece."""
        made = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                answer = function(*args, **(kwargs or {}))
                if function is torch.ops.aten.zeros.default:
                    made.append(answer.numel() * answer.element_size())
                return answer

        with Watch():
            gradient_dot(
                module, Target(lambda m, x: m(x).square().mean(1), batch), groups, num_folds=2, block_size=block
            )
        return made

    for limit in (4.0, 0.02):
        block, gib = gradient_memory(ProbeConfig(memory_limit_gib=limit), 0.0, num_groups=12, num_weights=weights)
        made = [size for size in largest(block) if size > 10_000]
        assert sum(sorted(made)[-2:]) == pytest.approx(gib * GIB, rel=1e-3)
