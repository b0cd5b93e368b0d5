"""The script of the suite, on a sweep of tiny models."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from stagewise import ProbeConfig, open_run
from stagewise.probes.flags import Thresholds
from tests.sweep.tiny import save_checkpoints, swept, tiny_config

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_numbers_are_those_of_the_store_and_figures_are_drawn(tmp_path):
    checkpoints = save_checkpoints(tmp_path / "suite")
    # Chains too short for equilibrium count as if they were in it.
    off = Thresholds(**{field.name: None for field in fields(Thresholds)})
    probe = ProbeConfig(chunk_size=3, save_trace=False, control_every=1, token_samples=[0], thresholds=off)
    config = tiny_config(tmp_path, checkpoints, probe=probe, components=["all", "heads"], query=[0, 5])
    swept(config)
    path, output = tmp_path / "suite.json", config.output
    command = [sys.executable, str(ROOT / "benchmarks" / "suite.py"), output, "--heads", output]
    command += ["--json", str(path), "--figures", str(tmp_path), "--text", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    run = open_run(output)
    own = run["control_probe_bif"].sel(group="rest", group_j="rest").values
    assert found["classes"]["influence"]["rest"]["value"] == own.tolist()
    low, high = (np.array(found["classes"]["llc"]["all"][end]) for end in ("low", "high"))
    np.testing.assert_allclose((low + high) / 2, run["llc"].values, rtol=1e-9)
    factor = t.ppf(0.975, config.sgld.num_chains - 1)
    np.testing.assert_allclose((high - low) / 2, factor * run["llc_se"].values, rtol=1e-9)
    own = run["control_difference_se"].sel(group="rest", group_j="rest").values
    low, high = (np.array(found["classes"]["difference"]["rest"][end]) for end in ("low", "high"))
    np.testing.assert_allclose((high - low) / 2, factor * own, rtol=1e-9)
    assert "Positions" in found["classes"]["verdict"]
    assert found["classes"]["settings"]["num_chains"] == config.sgld.num_chains
    counted = found["classes"]["counts"]["against_control"]
    assert counted["effects"] == counted["beyond"] + counted["alike"] + counted["undecided"]
    assert counted["weaker"] <= counted["beyond"]
    assert "llc" in found["classes"]["counts"]["turns"]
    heads = found["heads"]["2"]
    assert heads["heads"] == ["layer0.head0", "layer0.head1", "layer1.head0", "layer1.head1"]
    np.testing.assert_allclose(np.mean(heads["standardised"], axis=0), 0, atol=1e-12)
    assert sum(heads["principal_shares"]) == pytest.approx(1)
    assert (tmp_path / "suite.png").stat().st_size > 10_000
    assert (tmp_path / "suite_heads.png").stat().st_size > 10_000
    assert len(found["heads"]) > 1
    assert (tmp_path / "suite_head_llc.png").stat().st_size > 10_000
    assert (tmp_path / "suite_text.png").read_bytes()[:4] == b"\x89PNG"
