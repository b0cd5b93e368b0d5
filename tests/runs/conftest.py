"""Runs shared by many tests, opened once; read only."""

import pytest

from stagewise.influence.stored_matrices import SampleMatrices
from stagewise.runs.open import open_run
from tests.phases.synthetic_run import write_run
from tests.runs.full_run import write_full_run


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """44 probes with a transition at MIDDLE."""
    return open_run(write_run(tmp_path_factory.mktemp("synthetic")))


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """Three probes with every product."""
    return open_run(write_full_run(tmp_path_factory.mktemp("full")), trace=True)


@pytest.fixture(scope="session")
def matrices(tmp_path_factory):
    """The same with all sample matrices."""
    return open_run(write_full_run(tmp_path_factory.mktemp("all"), SampleMatrices.all))
