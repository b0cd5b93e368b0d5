"""``stagewise sweep`` from the command line."""

import json
import re
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from stagewise import open_run
from stagewise.cli.main import main
from stagewise.cli.sweep import sweep_parser
from stagewise.sweep.config import SweepConfig
from tests.sweep.tiny import SIZE, save_checkpoints, write_corpus

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = CONFIGS / "pythia-14m.yaml"
PUBLISHED = {"14m": 1e-3, "70m": 3e-4, "160m": 1e-4, "410m": 1e-4, "1b": 3e-5, "1.4b": 3e-5, "2.8b": 1e-5}

SMALL = """
data: {context: 16, num_observed: 4, num_sampling: 8}
sgld: {lr: 1.0e-4, num_chains: 2, num_draws: 3, num_burnin_steps: 2, num_steps_bw_draws: 1, batch_size: 4, drift: plain}
circuits: {num_sequences: 2, segment_length: 4}
device: cpu
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("sweep")
    save_checkpoints(found / "them", steps=[2, 16, 128])
    write_corpus(found)
    (found / "small.yaml").write_text(SMALL)
    return found


def arguments(folder, output):
    given = {"checkpoints": folder / "them", "corpus": folder / "corpus.txt", "output": output}
    return ["sweep", "-c", str(folder / "small.yaml")] + [f"--{name}={value}" for name, value in given.items()]


def test_a_sweep_is_computed_written_and_read_by_detect(folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(arguments(folder, output)) == 0
    said = capsys.readouterr().out
    assert "FLOPs" in said
    assert f"Written: {output / 'influence.zarr'}" in said
    run = open_run(output)
    assert run["step"].values.tolist() == [2, 16, 128]
    assert (run.attrs["nbeta"], run.attrs["localization"]) == (30, 300)
    assert {path.name for path in output.iterdir()} == {
        "cells",
        "circuits",
        "settings.json",
        "influence.zarr",
        "summary.json",
        "groups.csv",
        "circuits.csv",
        "classes.md",
    }
    assert main(["detect", str(output)]) == 0
    assert "3 probes, steps 2 to 128." in capsys.readouterr().out


def test_a_dry_run_tells_cost_and_memory_and_writes_nothing(folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert main([*arguments(folder, output), "--dry-run"]) == 0
    words = capsys.readouterr().out
    assert "FLOPs a cell" in words
    assert re.search(r"The chains need \S+ GiB of cpu at their peak.*\(module .*, weights .*, gradient .*\)", words)
    assert not output.exists()


def test_a_file_cannot_ask_for_a_dry_run(folder, tmp_path, capsys):
    path = tmp_path / "dry.yaml"
    path.write_text("dry_run: true\n")
    assert main([*arguments(folder, tmp_path / "out"), "-c", str(path)]) == 2
    assert "dry_run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_steps_are_chosen_and_settings_overridden_by_name(folder, tmp_path):
    output = tmp_path / "out"
    assert main([*arguments(folder, output), "--steps", "[2,128]", "--sgld.nbeta=7", "--circuits.enabled=false"]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["probe_steps"], summary["nbeta"]) == ([2, 128], 7)
    assert not (output / "circuits.csv").exists()


def test_lightning_files_take_their_model_from_the_configuration(folder, tmp_path, capsys):
    (tmp_path / "a-step=2.ckpt").write_bytes(b"no checkpoint")
    changed = [
        f"--checkpoints={tmp_path}",
        "--model=stagewise.lm.module.CausalLM",
        f"--model.config={json.dumps(SIZE)}",
    ]
    tokenizer = f"--data.tokenizer={folder / 'them'}"
    assert main([*arguments(folder, tmp_path / "out"), *changed, tokenizer]) == 2
    assert "a-step=2.ckpt, which cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("size", PUBLISHED)
def test_configurations_of_pythia_have_the_published_settings(size):
    files = [BASE] if size == "14m" else [BASE, CONFIGS / f"pythia-{size}.yaml"]
    parser = sweep_parser()
    values = parser.instantiate_classes(
        parser.parse_args([item for file in files for item in ("-c", str(file))])
    ).as_dict()
    values.pop("config")
    config = SweepConfig(**values)
    sgld = config.sgld
    assert config.checkpoints == f"EleutherAI/pythia-{size}"
    assert config.output == f"runs/pythia-{size}"
    assert (sgld.nbeta, sgld.localization, sgld.batch_size) == (30, 300, 32)
    assert (sgld.num_chains, sgld.num_draws, sgld.lr) == (4, 100, PUBLISHED[size])
    assert (config.corpus, config.data.streaming) == ("NeelNanda/pile-10k", True)


def test_settings_that_a_file_leaves_out_are_the_published_ones(tmp_path):
    file = tmp_path / "few.yaml"
    file.write_text(yaml.safe_dump({"checkpoints": "a/b", "corpus": "stdlib", "sgld": {"lr": 1e-3}}))
    parser = sweep_parser()
    found = parser.instantiate_classes(parser.parse_args(["-c", str(file)]))
    assert (found.sgld.num_chains, found.sgld.num_draws, found.sgld.nbeta) == (4, 100, 30)
    assert found.sgld.engine == "sequential"
    assert found.probe.save_trace is False


MISTAKES = {
    "step": (["--steps", "[3]"], "got steps 3, of which there is no checkpoint"),
    "steps in words": (["--steps", "log:one"], "log:<number of checkpoints>"),
    "place": (["--checkpoints", "./nowhere"], "does not exist"),
    "hub name without steps": (["--checkpoints", "some/model"], "without steps"),
    "hub name without network": (["--checkpoints", "some/model", "--steps", "[1]"], "cannot be loaded"),
    "hub corpus without network": (["--corpus", "some/corpus"], "cannot be loaded as a Hugging Face data set"),
    "context": (["--data.context", "64"], "the context of the model"),
    "type": (["--sgld.lr", "fast"], "sgld.lr"),
    "unknown setting": (["--sgld.n_beta", "3"], "n_beta"),
    "tokenizer": (["--data.tokenizer", "./nowhere"], "tokenizer './nowhere'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_by_one_line_and_status_2(folder, tmp_path, capsys, monkeypatch, mistake):
    import datasets

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    changed, words = MISTAKES[mistake]
    assert main([*arguments(folder, tmp_path / "out"), *changed]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stagewise sweep: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "out").exists()
