"""Settings of every test."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """No test depends on which ones ran before it."""
    torch.manual_seed(0)
