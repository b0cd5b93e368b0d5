import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from huggingface_hub import GitRefInfo, GitRefs

from stagewise.errors import InputError
from stagewise.runs.open import open_run
from stagewise.sweep.find_checkpoints import find_checkpoints
from stagewise.sweep.results import write_results
from stagewise.sweep.study import prepare_sweep, run_cells
from tests.sweep.tiny import model, save_checkpoints, tiny_config, tokenizer

SUITES = yaml.safe_load((Path(__file__).parent / "suites.yaml").read_text())


def silent(_: str) -> None:
    pass


@pytest.fixture
def offline(monkeypatch):
    """As without a network: at once, where the real one is tried for half a minute."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def fill_cache(cache: Path, name: str, steps) -> None:
    """A cache as downloads of some revisions leave it; steps, or names of revisions by step."""
    revisions = steps if isinstance(steps, dict) else {step: f"step{step}" for step in steps}
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    for step, revision in revisions.items():
        commit = f"{step:040x}"
        (folder / "refs" / revision).write_text(commit)
        model(seed=step).save_pretrained(folder / "snapshots" / commit)
        tokenizer().save_pretrained(folder / "snapshots" / commit)


def test_revisions_of_a_hub_model_are_its_checkpoints(tmp_path, offline):
    fill_cache(tmp_path / "cache", "some/model", [1, 2])
    folder = save_checkpoints(tmp_path / "them", steps=[1, 2])
    runs = []
    for name, where in (("hub", "some/model"), ("local", str(folder))):
        (tmp_path / name).mkdir()
        config = tiny_config(tmp_path / name, where, steps=[1, 2], cache_dir=str(tmp_path / "cache"))
        sweep = prepare_sweep(config)
        run_cells(sweep, silent)
        write_results(sweep)
        runs.append(open_run(config.output))
    assert runs[0]["bif_within"].identical(runs[1]["bif_within"])


def test_a_revision_that_is_not_there_is_named_before_the_work(tmp_path, offline):
    fill_cache(tmp_path / "cache", "some/model", [1])
    with pytest.raises(InputError, match=r"revision step2 of 'some/model'.*check the name, --steps") as caught:
        prepare_sweep(tiny_config(tmp_path, "some/model", steps=[1, 2], cache_dir=str(tmp_path / "cache")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_network_is_told_in_one_line(tmp_path, offline):
    config = tiny_config(tmp_path, "some/model", steps=[1], cache_dir=str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"revision step1 of 'some/model', which cannot be loaded") as caught:
        prepare_sweep(config)
    assert "connection" in str(caught.value)
    assert "\n" not in str(caught.value)


# A stand-in for the hub: it lists branches as the real one does, and what is downloaded lies in the cache already.


def serve(monkeypatch, branches, tags=()):
    def listed(self, name, **_):
        def refs(kind, names):
            return [GitRefInfo(name=name, ref=f"refs/{kind}/{name}", target_commit="0" * 40) for name in names]

        return GitRefs(branches=refs("heads", branches), converts=[], tags=refs("tags", tags), pull_requests=None)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_refs", listed)


def test_revisions_are_discovered_by_their_names_and_loaded(tmp_path, offline, monkeypatch):
    revisions = {1000: "step1000-tokens4B", 20000: "step20000-tokens84B", 30000: "step30000-tokens126B"}
    serve(monkeypatch, ["main", *revisions.values()], tags=["v1", "step20000-tokens84B"])
    fill_cache(tmp_path / "cache", "allenai/OLMo-1B", revisions)
    config = tiny_config(tmp_path, "allenai/OLMo-1B", steps="log:2", cache_dir=str(tmp_path / "cache"))
    sweep = prepare_sweep(config)
    assert sweep.steps == (1000, 30000)
    run_cells(sweep, silent)
    write_results(sweep)
    facts = json.loads((tmp_path / "out" / "summary.json").read_text())["sweep"]
    assert facts["names"] == ["step1000-tokens4B", "step30000-tokens126B"]
    assert facts["step_tokens"] == [4 * 10**9, 126 * 10**9]
    known = json.loads((tmp_path / "out" / "cells" / "checkpoints.json").read_text())
    assert known["1000"] == "allenai/OLMo-1B step1000-tokens4B"


def test_listed_steps_without_a_revision_are_told_and_the_others_measured(tmp_path, offline, monkeypatch):
    serve(monkeypatch, ["main", "step1", "step2"])
    fill_cache(tmp_path / "cache", "some/model", [1, 2])
    config = tiny_config(tmp_path, "some/model", steps=[1, 3, 7], cache_dir=str(tmp_path / "cache"))
    sweep, lines = prepare_sweep(config), []
    run_cells(sweep, lines.append)
    assert lines[0] == "no checkpoint of steps 3, 7; going on with the 1 found"
    write_results(sweep)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["sweep"]["steps_missing"] == [3, 7]
    with pytest.raises(InputError, match=r"got steps 5, of which there is no checkpoint; expected some of 1, 2"):
        prepare_sweep(replace(config, steps=[5]))


@pytest.mark.parametrize("name", SUITES)
def test_the_checkpoints_of_public_suites_are_found(tmp_path, monkeypatch, name):
    suite = SUITES[name]
    entries = suite["seen"] | suite["by_convention"]
    serve(monkeypatch, ["main", *entries])
    config = tiny_config(tmp_path, name, steps="all")
    if name == "LLM360/Amber":
        with pytest.raises(InputError, match="numbered, without a training step"):
            find_checkpoints(config)
        tokens = {entry: 3.5e9 * (1 + int(entry[-3:])) for entry in entries}
        assert find_checkpoints(replace(config, name_tokens=tokens)).steps() == [0, 1, 40, 355, 356, 358]
        return
    if len({branch for _, _, branch in entries.values()}) > 1:
        with pytest.raises(InputError, match=r"of 4 branches in 'allenai/OLMo-2-1124-7B' on the hub: stage1 \("):
            find_checkpoints(config)
        config = replace(config, branch="stage1")
    expected = sorted(step for step, _, branch in entries.values() if branch == (config.branch or "main"))
    assert find_checkpoints(config).steps() == expected


def test_a_model_without_checkpoints_is_told_from_its_revisions(tmp_path, monkeypatch):
    serve(monkeypatch, ["main", "gptq-4bit"])
    with pytest.raises(InputError, match=r"got 'a/b', whose revisions are main, gptq-4bit; expected some with a step"):
        find_checkpoints(tiny_config(tmp_path, "a/b", steps="all"))


def test_without_a_network_what_is_in_the_cache_is_taken_and_told(tmp_path, offline):
    fill_cache(tmp_path / "cache", "some/model", {7: "stage1-step7-tokens1B", 9: "stage1-step9-tokens2B"})
    sweep = prepare_sweep(tiny_config(tmp_path, "some/model", steps="all", cache_dir=str(tmp_path / "cache")))
    assert sweep.steps == (7, 9)
    assert "the hub cannot be asked (" in sweep.notes[0]
    assert sweep.notes[0].endswith("going on with the 2 revisions in the cache")
    with pytest.raises(
        InputError, match=r"got 'other/model', with no revision that is known \(the hub cannot be asked"
    ):
        prepare_sweep(tiny_config(tmp_path, "other/model", steps="all", cache_dir=str(tmp_path / "cache")))
