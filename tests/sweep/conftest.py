import pytest

from stagewise.sweep.config import CircuitSettings
from tests.sweep.tiny import save_checkpoints, swept, tiny_config


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Three checkpoints of a GPT-NeoX with their tokenizer, for tests that only read them."""
    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def of_components(checkpoints, tmp_path_factory):
    """A sweep of all weights, of each head and of an MLP at two checkpoints, for tests that only read it."""
    config = tiny_config(
        tmp_path_factory.mktemp("components"),
        checkpoints,
        steps=[1, 2],
        circuits=CircuitSettings(enabled=False),
        components=["all", "heads", "layer0.mlp", "layer0.head1"],
    )
    return swept(config)
