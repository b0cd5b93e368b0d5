"""What can be checked before step size and localization are known, and what later probes take over."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.probes.carried import Carried
from stagewise.probes.config import ProbeConfig
from stagewise.probes.llc_config import LLCConfig
from stagewise.probes.prober import Prober
from stagewise.probes.subject import examine
from stagewise.sampling.config import ResolvedSGLD, SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.target import Target

X = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
OPEN = SGLDConfig(num_chains=2, num_draws=4, batch_size=5, engine="sequential")
NUMBERS = replace(OPEN, lr=1e-3, localization=20.0)
GROUPS = {"low": torch.arange(10) < 4}


def losses(module, x):
    return module(x)[:, 0].square()


def look(module, sgld=OPEN, config=ProbeConfig(), groups=GROUPS):
    return examine(module, Target(losses, X, chunk_size=4), groups, sgld, config)


def test_everything_but_the_step_is_refused_before_it_is_known():
    module = nn.Linear(3, 1)
    assert look(module).groups.names == ("low",)
    for sgld, config, words in (
        (replace(OPEN, parameters=["nothing"]), ProbeConfig(), "matches no trainable parameter"),
        (OPEN, ProbeConfig(memory_limit_gib=1e-9), "memory_limit_gib"),
        (OPEN, ProbeConfig(token_samples=[1]), "token_samples"),
        (replace(OPEN, localization=4.0), ProbeConfig(llc=LLCConfig(lr=1.5)), "lr"),
    ):
        with pytest.raises(InputError, match=words):
            look(module, sgld, config)
    with pytest.raises(InputError, match=r"got lr='auto' and localization='auto'; expected numbers where chains run"):
        Prober(module, losses, ProbeData(X), sgld=OPEN, config=ProbeConfig())


def test_a_prober_over_what_was_examined_early_is_the_one_that_is_made_at_once():
    module = nn.Linear(3, 1)
    early = Prober.over(module, look(module), NUMBERS.require_resolved(), Carried(1.15))
    config = ProbeConfig(chunk_size=4)
    at_once = Prober(module, losses, ProbeData(X, groups=GROUPS), sgld=NUMBERS, config=config)
    assert early.fingerprint() == at_once.fingerprint()
    first, second = (item.probe(module, 3)[0].drop_vars(["seconds"]) for item in (early, at_once))
    assert first.drop_attrs().equals(second.drop_attrs())


def test_resolved_settings_are_shown_and_compared_as_the_settings_that_they_are():
    resolved = NUMBERS.require_resolved()
    assert isinstance(resolved, ResolvedSGLD)
    assert resolved.require_resolved() is resolved
    assert repr(resolved) == repr(NUMBERS)
    assert resolved.one_line() == NUMBERS.one_line()
    assert replace(resolved, nbeta=7.0).lr == NUMBERS.lr
    for open_still in (OPEN, replace(OPEN, lr=1e-3), replace(OPEN, localization=3.0)):
        with pytest.raises(InputError, match="auto"):
            open_still.require_resolved()
    with pytest.raises(InputError, match="lr"):
        replace(resolved, lr="auto")


def test_chunks_are_halved_down_to_one_sample():
    subject, sizes = look(nn.Linear(3, 1)), []
    while subject is not None:
        sizes.append(subject.target.chunk_size)
        subject = subject.with_smaller_chunks()
    assert sizes == [4, 2, 1]


def test_what_a_failed_probe_added_is_taken_back():
    module = nn.Linear(3, 1)
    carried = Carried(1.15)
    prober = Prober.over(module, look(module), NUMBERS.require_resolved(), carried)
    prober.probe(module, 2, lr_sum=0.1)
    mark = carried.mark()
    before = carried.tracin.state_dict()
    prober.probe(module, 9, lr_sum=0.5)
    assert len(carried.references.steps) == 2
    assert carried.num_probes == 2
    carried.return_to(mark)
    assert len(carried.references.steps) == 1
    assert carried.num_probes == 1
    after = carried.tracin.state_dict()
    assert torch.equal(before["tracin"]["total"], after["tracin"]["total"])
    assert (after["last_step"], after["lr_sum"]) == (2, 0.1)
