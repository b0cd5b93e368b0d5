import pytest

from tests.studies.toy.figures.synthetic import config_of, results_of


@pytest.fixture(scope="session")
def config():
    return config_of()


@pytest.fixture(scope="session")
def results(config):
    return results_of(config)
