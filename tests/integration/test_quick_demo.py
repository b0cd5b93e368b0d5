"""The quick demo keeps its promise: under a minute on one core, and what its configuration says it shows."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from stagewise import open_run

ROOT = Path(__file__).parents[2]
CONFIGS = [f"configs/{name}.yaml" for name in ("induction", "induction_quick")]


@pytest.mark.slow
def test_the_quick_demo_shows_the_head_form_within_a_minute_of_one_core(tmp_path):
    code = "from stagewise.cli.main import entry_point; entry_point()"
    files = [item for name in CONFIGS for item in ("-c", str(ROOT / name))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, "fit", *files], cwd=tmp_path, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor: the clock on the wall depends on what else runs.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60

    run = open_run(tmp_path / "runs" / "induction_quick" / "version_0").stagewise
    curve = run.curve("induction", "induction")
    first = curve.sel(step=250)
    assert first["low"] < 0 < first["high"]
    assert (curve["high"].sel(step=[500, 550, 650]) < 0).all()
    assert curve["equilibrated"].all()
    (window,) = run.windows()
    assert window.peak == 500
