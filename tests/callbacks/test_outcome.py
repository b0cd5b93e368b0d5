"""Outcome of a probe on another rank: everything except draws and large matrices, with an equal carried state."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stagewise import LLCConfig, ProbeConfig
from stagewise.callbacks.outcome import Outcome, told_to_all
from stagewise.callbacks.ranks import Ranks, data_of_rank_zero
from stagewise.phases.signal import Signal
from stagewise.probes.prober import Prober
from stagewise.reporting.scalars import probe_scalars
from stagewise.sampling.data import ProbeData
from stagewise.sampling.share import ChainShare
from tests.callbacks.runs import SGLD, Regression, X, Y

CONFIG = ProbeConfig(save_trace=True, llc=LLCConfig(num_draws=4))
DATA = ProbeData((X[:12], Y[:12]), (X[12:], Y[12:]), {"low": torch.arange(12) < 6, "odd": torch.arange(12) % 2 == 1})


class Second(Ranks):
    """Second of two ranks, in the process of the first: receives a copy of what that one sends."""

    def __init__(self, says=None):
        super().__init__()
        self.share, self.says = ChainShare(1, 2), says

    def decide(self, work):
        return self.says


class First(Ranks):
    """First of two ranks: stores what it sends."""

    def __init__(self):
        super().__init__()
        self.share, self.said = ChainShare(0, 2), None

    def decide(self, work):
        self.said = work()
        return self.said


def prober(module):
    return Prober(module, Regression.per_sample_loss, DATA, sgld=SGLD, config=CONFIG)


def test_the_sent_outcome_serves_another_rank_like_the_original():
    module = Regression()
    first, second = prober(module), prober(module)
    for step in (3, 4, 9):
        with torch.no_grad():
            module.layer.weight += 0.1
        result, trace = first.probe(module, step, lr_sum=step / 10)
        ranks = First()
        kept = told_to_all(Outcome(result, trace), first.carried, ranks)
        assert kept.result is result
        heard = told_to_all(Outcome(None, trace), second.carried, Second(ranks.said))
        small = heard.result
        assert not {"draw", "sample_j"} & set(small.dims)
        assert {"loss", "bif"} <= set(result) - set(small)
        for name in small.variables:
            np.testing.assert_array_equal(small[name].values, result[name].values, err_msg=name)
        assert small.attrs == result.attrs
        assert heard.logged() == Outcome(result, trace).logged() == probe_scalars(result)
        for name in ("between", "group_loss/low", "within/low~odd", "llc/low", "chain_share", "losses_alone"):
            np.testing.assert_array_equal(Signal.parse(name).read(small), Signal.parse(name).read(result))
        assert heard.trace.loss.size == heard.trace.distance.size == 0
        assert (heard.trace.chains, heard.trace.engine) == (trace.chains, trace.engine)
        left, right = first.carried, second.carried
        assert left.references.steps == right.references.steps
        assert left.num_probes == right.num_probes
        states = [[*side.references.state_dict(), side.tracin.state_dict()] for side in (left, right)]
        flat = [torch.utils._pytree.tree_leaves(state) for state in states]
        assert len(flat[0]) == len(flat[1])
        assert all(np.array_equal(one, other) for one, other in zip(*flat, strict=True))


def test_lost_samples_are_sent_with_a_lost_probe():
    module = Regression()
    _, trace = prober(module).probe(module, 3)
    ranks = First()
    told_to_all(Outcome(None, replace(trace, dropped={0: "why"}), (3,)), prober(module).carried, ranks)
    heard = told_to_all(Outcome(None, trace), prober(module).carried, Second(ranks.said))
    assert (heard.result, heard.lost, heard.trace.dropped, heard.logged()) == (None, (3,), {0: "why"}, {})


@pytest.mark.parametrize("differs", [False, True])
def test_data_of_rank_zero_are_used_if_they_differ(differs):
    other = ProbeData((X[:12] + differs, Y[:12]), DATA.sampling, DATA.groups)
    said = []

    class Both(Second):
        def gather(self, mine):
            return ["of rank zero", "other"] if differs else [mine, mine]

        def decide(self, work):
            said.append(work())
            return (DATA.observed, DATA.sampling) if len(said) == 1 else dict(DATA.groups)

        def each(self, work):
            return work()

    found = data_of_rank_zero(other, Both())
    assert len(said) == 2 * differs
    assert (found is other) is not differs
    assert torch.equal(found.observed[0], X[:12])
    assert list(found.groups) == ["low", "odd"]
