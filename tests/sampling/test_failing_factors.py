import pytest
import torch
from torch import nn

from stagewise.sampling import chains
from stagewise.sampling.chains import run_chains
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.target import Target
from tests.sampling.test_chains import small, squared


def test_process_without_chains_computes_no_factors(monkeypatch):
    monkeypatch.setattr(chains, "ekfac_preconditioner", lambda *args, **kwargs: pytest.fail("not needed"))
    batch = (torch.randn(10, 3), torch.randn(10, 1))
    sampler = chains.ChainSampler(nn.Linear(3, 1), Target(squared, batch), small(preconditioner=EKFAC(loss="mse")))
    assert sampler.run(numbers=range(0)).chains == ()


def test_failing_preconditioner_factors_lose_the_probe_but_not_the_run(monkeypatch):
    def fails(*args, **kwargs):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(chains, "ekfac_preconditioner", fails)
    batch = (torch.randn(10, 3), torch.randn(10, 1))
    config = small(preconditioner=EKFAC(loss="mse"))
    trace = run_chains(nn.Linear(3, 1), squared, observed=batch, sampling=batch, config=config)
    assert trace.chains == ()
    assert set(trace.dropped.values()) == {"the preconditioner's factors have no eigenvectors (did not converge)"}
