"""Runs of several processes, started as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m tests.integration.NAME``, one thread for each process; Lightning starts the others."""
    return subprocess.run(
        [sys.executable, "-m", f"tests.integration.{name}", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
