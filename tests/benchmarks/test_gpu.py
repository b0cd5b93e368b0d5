"""The script for a card, rehearsed at tiny size on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_check_and_every_timing_runs_without_a_card(tmp_path):
    path = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--json", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(path.read_text())
    checks = {row["case"]: row["value"] for row in rows if row["unit"] == "check"}
    assert checks == dict.fromkeys(
        (
            "training in 32-true",
            "training in bf16-mixed",
            "engines, float32",
            "sweep cell",
            "tiny shape, float32, compiled",
        ),
        1.0,
    )
    assert [row["case"] for row in rows if row["note"].startswith("not run")] == ["training in 16-mixed"]
    draws = [row for row in rows if row["measure"] == "further draw / floor"]
    assert len(draws) == 3
    assert all(row["ratio"] > 0 and row["value"] > 0 for row in draws)
    assert len([row for row in rows if row["unit"] == "s"]) == 10
    compiling = next(row for row in rows if row["measure"] == "compiling")
    assert compiling["value"] > 0
