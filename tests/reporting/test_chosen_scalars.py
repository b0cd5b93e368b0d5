"""Few groups have every curve; many have those of the strongest, 60 tags at most, the same ones all along."""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.reporting import tags
from stagewise.reporting.chosen_scalars import MOST_SCALARS, choose_scalars, optional_scalars
from stagewise.reporting.scalars import probe_scalars
from stagewise.sampling.data import ProbeData
from tests.sampling.test_chains import squared
from tests.short_chains import SHORT

OF_REPORTER = {
    tags.IN_WINDOW, tags.OVERHEAD, tags.CHAINS_DROPPED, tags.SKIPPED, tags.NUM_WINDOWS, tags.FIRST_PEAK,
    tags.FLAGGED_SHARE,
}  # fmt: skip
"""Tags that are not of a probe."""


@cache
def probes_of(num_groups, *, num_chains=3, **settings):
    """Two probes of a small model, whose groups have different sizes of features, so that their influence differs."""
    torch.manual_seed(0)
    size = 3 * num_groups
    group = torch.arange(size) % num_groups
    x = torch.randn(size, 3) * (1 + group[:, None])
    groups = {f"g{row}": group == row for row in range(num_groups)}
    module = torch.nn.Linear(3, 1)
    sgld = replace(SHORT, lr=1e-5, num_chains=num_chains, num_draws=6, batch_size=8)
    prober = Prober(
        module, squared, ProbeData((x, torch.randn(size, 1)), groups=groups), sgld=sgld, config=ProbeConfig(**settings)
    )
    first = prober.probe(module, 1, lr_sum=0.0)[0]
    with torch.no_grad():
        module.bias += 1
    return first, prober.probe(module, 2, lr_sum=0.1)[0]


def logged(num_groups, *, reserved=0, **settings):
    first, second = probes_of(num_groups, **settings)
    kept = choose_scalars(first, reserved=reserved)
    optional = optional_scalars([f"g{row}" for row in range(num_groups)])
    assert set(kept) <= optional
    values = {**probe_scalars(first), **probe_scalars(second)}
    return {tag for tag in values if tag not in optional or tag in kept} | OF_REPORTER, values


@pytest.mark.parametrize("num_groups", [5, 7, 10, 12, 20])
def test_many_groups_have_sixty_tags_at_most(num_groups):
    found, values = logged(num_groups, control_every=1)
    assert 45 <= len(found) <= MOST_SCALARS < len(values)
    for reserved in (5, 5 + 1 + num_groups):
        assert len(logged(num_groups, reserved=reserved, control_every=1)[0]) <= MOST_SCALARS - reserved


@pytest.mark.parametrize("num_groups", [1, 2, 3, 4])
def test_few_groups_have_every_tag_of_the_contract(num_groups):
    found, _ = logged(num_groups, control_every=1)
    names = [f"g{row}" for row in range(num_groups)]
    for one, two in itertools.combinations_with_replacement(names, 2):
        for part in ("within", "drift", "between", "total"):
            assert f"influence/{part}/{one}~{two}" in found
        assert {f"baseline/graddot/{one}~{two}", f"control/{one}~{two}", f"baseline/tracin/{one}~{two}"} <= found
    assert {f"llc/{name}" for name in (*names, "all")} | {f"influence/loss/{name}" for name in names} <= found
    errors = {tag for tag in found if "_se/" in tag or "_z/" in tag}
    assert bool(errors) == (num_groups == 1)
    assert len(found) <= MOST_SCALARS or not errors


def test_every_probe_has_its_own_tags_whatever_the_groups():
    found, values = logged(20)
    optional = optional_scalars([f"g{row}" for row in range(20)])
    assert values.keys() - optional <= found
    for tag in ("influence/between/trace", "influence/flip_fraction", "sampler/rhat_max", "sampler/seconds",
                "transition/signal", "llc/all"):  # fmt: skip
        assert tag in found


def test_ten_groups_have_each_its_loss_and_own_influence_and_the_strongest_pairs_of_two():
    first, _ = probes_of(10)
    kept = choose_scalars(first)
    names = [f"g{row}" for row in range(10)]
    assert {f"influence/loss/{name}" for name in names} <= set(kept)
    assert {f"influence/within/{name}~{name}" for name in names} <= set(kept)
    cross = [tag for tag in kept if tag.startswith("influence/within/") and len(set(tag[17:].split("~"))) == 2]
    assert 8 <= len(cross) <= 12
    # Without errors, as with one chain, the strongest are the largest.
    alone, _ = probes_of(10, num_chains=1)
    size = np.abs(alone["group_bif"].sel(part="within").values)
    ranked = sorted((size[i, j], f"influence/within/g{i}~g{j}") for i in range(10) for j in range(i + 1, 10))[::-1]
    cross = [tag for tag in choose_scalars(alone) if tag in dict(map(reversed, ranked))]
    assert cross == [tag for _, tag in ranked[: len(cross)]]


def test_of_twenty_groups_those_that_influence_themselves_most_have_curves():
    first, _ = probes_of(20, num_chains=1)
    kept = choose_scalars(first)
    own = np.abs(np.diag(first["group_bif"].sel(part="within").values))
    want = {f"g{row}" for row in np.argsort(own)[-12:]}
    assert {tag.rpartition("/")[2] for tag in kept if tag.startswith("influence/loss/")} == want


def test_the_choice_is_that_of_the_first_probe_alone():
    first, again = probes_of(10)[0], probes_of.__wrapped__(10)[0]
    assert choose_scalars(first) == choose_scalars(again)
    assert len(choose_scalars(first)) == len(set(choose_scalars(first)))
