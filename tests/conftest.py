"""Settings of every test.

This file is read by the process that hands tests out, too: torch and stagewise are imported where tests are collected.
"""

import gc
import os

import pytest

# Collections of garbage over all that torch, Lightning and the tests bring take a third of the time of imports.
gc.disable()


def pytest_collection():
    """Settings of a process that runs tests: xdist keeps this from being called in the one that hands them out."""
    import torch
    from hypothesis import settings

    from tests import blank_figures, quick_probes

    torch.set_num_threads(1)
    # The same examples on every machine; HYPOTHESIS_PROFILE=explore looks for new ones.
    settings.register_profile("repeatable", derandomize=True)
    settings.register_profile("explore", max_examples=500)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
    quick_probes.begin()
    blank_figures.begin()
    os.fsync = os.fstat  # raises for the same descriptors, and does not wait for the disk


def pytest_collection_finish():
    """Keeps the collector from looking at all imports after each test."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def seeded():
    """No test depends on which ones ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def whole_probes(request, monkeypatch):
    """Probes with the defaults that users have, but for the settings that the mark names."""
    mark = request.node.get_closest_marker("whole_probes")
    if mark is not None:
        from tests import quick_probes

        quick_probes.make_whole(monkeypatch, mark.kwargs)


@pytest.fixture(autouse=True)
def drawn_figures(request, monkeypatch):
    """Figures as users see them, where a test is marked for it or its probes have their pictures."""
    whole = request.node.get_closest_marker("whole_probes")
    pictures = whole is not None and whole.kwargs.get("draw_matrices", True)
    if pictures or request.node.get_closest_marker("drawn") is not None:
        from tests import blank_figures

        blank_figures.draw_again(monkeypatch)
