import pytest

from tests.sweep.tiny import save_checkpoints


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Three checkpoints of a GPT-NeoX with their tokenizer, for tests that only read them."""
    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))
