import shutil
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from stagewise.errors import InputError
from stagewise.reporting.token_axis import run_tokens
from stagewise.runs.open import open_run
from stagewise.sweep.config import CircuitSettings
from stagewise.sweep.find_checkpoints import find_checkpoints
from stagewise.sweep.study import dry_run, prepare_sweep
from tests.sweep.tiny import SIZE, model, save_checkpoints, swept, tiny_config, tokenizer


def named(folder, checkpoints, *names):
    """Checkpoints of steps 1 and 4 under other names."""
    for step, name in zip((1, 4), names, strict=False):
        shutil.copytree(checkpoints / f"step{step}", folder / name)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("checkpoint-500", "checkpoint-1000"),
        ("global_step500", "global_step1000"),
        ("step_500", "step_1000"),
        ("step-500", "step-1000"),
        ("iter_0000500", "iter_0001000"),
        ("step500-tokens2B", "step1000-tokens4B"),
        ("500", "1000"),
    ],
)
def test_folders_are_found_by_the_step_in_their_names_and_loaded(checkpoints, tmp_path, names):
    folder = named(tmp_path / "them", checkpoints, *names)
    (folder / "final").mkdir()
    source = find_checkpoints(tiny_config(tmp_path, folder))
    assert source.steps() == [500, 1000]
    expected = model(seed=4).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in source.load(1000).state_dict().items())
    assert source.identity(500) != source.identity(1000)
    assert source.limits(500) == source.limits(1000)
    assert source.tokenizer()[0] == str(folder)


def test_a_folder_that_forks_is_refused_and_a_branch_chosen(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "stage1-step500-tokens2B", "stage2-ingredient1-step100-tokens1B")
    config = tiny_config(tmp_path, folder)
    with pytest.raises(InputError, match=r"got checkpoints of 2 branches in .*them: stage1 \(1 of steps 500 to 500\)"):
        find_checkpoints(config)
    source = find_checkpoints(replace(config, branch="stage1+stage2-ingredient1"))
    assert source.steps() == [500, 600]
    assert source.name_of(600).tokens == 3 * 10**9
    expected = model(seed=4).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in source.load(600).state_dict().items())
    for branch in ("stage1+stage1", "", "stage1+"):
        with pytest.raises(InputError, match="branch"):
            find_checkpoints(replace(config, branch=branch))


def test_numbered_folders_take_the_tokens_that_are_given(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "ckpt_000", "ckpt_001")
    config = tiny_config(tmp_path, folder)
    with pytest.raises(InputError, match="give name_tokens"):
        find_checkpoints(config)
    source = find_checkpoints(replace(config, name_tokens={"ckpt_001": 7e9, "ckpt_000": 3.5e9}))
    assert [(step, source.name_of(step).tokens) for step in source.steps()] == [(0, 3_500_000_000), (1, 7_000_000_000)]
    with pytest.raises(InputError, match="in which there is none of those in name_steps"):
        find_checkpoints(replace(config, name_steps={"ckpt_7": 4}))


def test_an_axis_of_tokens_needs_them_and_is_noted_for_the_figures(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "step500", "step1000")
    config = tiny_config(tmp_path, folder, axis="tokens", circuits=CircuitSettings(enabled=False))
    with pytest.raises(InputError, match=r"axis=tokens and checkpoints step500, step1000, whose tokens are not known"):
        prepare_sweep(config)
    falling = replace(config, name_tokens={"step500": 5, "step1000": 4})
    with pytest.raises(InputError, match="got checkpoint step1000 of 4 tokens after step500 of 5"):
        prepare_sweep(falling)
    prepare_sweep(replace(config, name_tokens={"step500": 5, "step1000": 5}))  # rounded in the names
    swept(replace(config, tokens_per_step=2_097_152))
    steps, tokens = run_tokens(open_run(tmp_path / "out"))
    assert steps.tolist() == [500, 1000]
    assert tokens.tolist() == [500 * 2_097_152, 1000 * 2_097_152]


def test_a_sweep_runs_over_folders_as_a_trainer_names_them(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "checkpoint-500", "checkpoint-1000")
    sweep = swept(tiny_config(tmp_path, folder))
    assert sweep.steps == (500, 1000)
    assert (tmp_path / "out" / "influence.zarr").is_dir()


def test_a_pattern_tells_steps_that_the_rule_does_not(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "model_e1_s500", "model_e2_s1000")
    config = tiny_config(tmp_path, folder)
    with pytest.raises(
        InputError, match=r"none, but model_e1_s500/, model_e2_s1000/, tokenizer.*step_pattern"
    ) as caught:
        find_checkpoints(config)
    assert "\n" not in str(caught.value)
    assert find_checkpoints(replace(config, step_pattern=r"model_e\d+_s(\d+)")).steps() == [500, 1000]
    with pytest.raises(InputError, match=r"in which there is none whose name is 'x\(\\\\d\+\)'.*correct step_pattern"):
        find_checkpoints(replace(config, step_pattern=r"x(\d+)"))
    with pytest.raises(InputError, match="step_pattern='model'"):
        replace(config, step_pattern="model")


def test_two_folders_of_one_step_are_refused_and_a_pattern_chooses(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "checkpoint-500", "step_500")
    config = tiny_config(tmp_path, folder)
    with pytest.raises(InputError, match=r"two checkpoints of step 500, checkpoint-500 and step_500.*step_pattern"):
        find_checkpoints(config)
    assert find_checkpoints(replace(config, step_pattern=r"step_(\d+)")).steps() == [500]


def test_a_checkpoint_in_place_of_the_folder_above_is_told_so(checkpoints, tmp_path):
    with pytest.raises(InputError, match=r"is a checkpoint itself; expected the folder above"):
        find_checkpoints(tiny_config(tmp_path, checkpoints / "step1"))


@pytest.mark.parametrize("how", ["shards", "pickled"])
def test_sharded_and_pickled_weights_are_read(tmp_path, how):
    whole = model(seed=3)
    place = tmp_path / "checkpoint-7"
    if how == "shards":
        whole.save_pretrained(place, max_shard_size="10KB")
        assert len(list(place.glob("*.safetensors"))) > 1
    else:
        whole.config.save_pretrained(place)
        torch.save(whole.state_dict(), place / "pytorch_model.bin")
    loaded = find_checkpoints(tiny_config(tmp_path, tmp_path)).load(7).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in whole.state_dict().items())


def test_checkpoints_of_a_masked_model_are_not_loaded_as_causal(tmp_path):
    BertForMaskedLM(BertConfig(**SIZE)).save_pretrained(tmp_path / "them" / "checkpoint-1")
    tokenizer().save_pretrained(tmp_path / "them")
    with pytest.raises(InputError, match=r"checkpoint-1 of a BertForMaskedLM; expected a causal language model"):
        prepare_sweep(tiny_config(tmp_path, tmp_path / "them"))


@pytest.mark.parametrize("given", ["~nosuchuser/x", "~/nothing", "runs/nothing/here", "nothing/", "läufe", "./x"])
def test_what_is_no_path_and_no_name_of_the_hub_is_a_path_that_does_not_exist(tmp_path, given):
    """Without a word to the hub."""
    with pytest.raises(InputError, match=r"a path that does not exist; expected a folder"):
        find_checkpoints(tiny_config(tmp_path, given, steps="all"))


@pytest.mark.parametrize("name", ["café ☕", "шаги"])
def test_folders_behind_links_relative_and_of_any_alphabet_are_found(checkpoints, tmp_path, monkeypatch, name):
    folder = named(tmp_path / name, checkpoints, "étape-500", "étape-1000")
    (tmp_path / "link").symlink_to(folder)
    (folder / "étape-7").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (name, f"./{name}/", f"~/{name}", "link", "link//"):
        source = find_checkpoints(tiny_config(tmp_path, given))
        assert source.steps() == [500, 1000]
        assert source.name_of(1000).name == "étape-1000"


def test_an_empty_folder_is_told_so(tmp_path):
    (tmp_path / "them").mkdir()
    with pytest.raises(InputError, match=r"in which there is none: it is an empty folder; expected subfolders"):
        find_checkpoints(tiny_config(tmp_path, tmp_path / "them"))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["mp_rank_00_model_states.pt", "layer_00-model_00-model_states.pt"], r"with layer_00.*GPT-NeoX.*scripts"),
        (["adapter_config.json"], r"with adapter_config.json; .*PEFT by merge_and_unload"),
        ([], "an empty folder"),
    ],
)
def test_checkpoints_of_another_layout_are_told_by_what_they_hold(checkpoints, tmp_path, files, words):
    folder = named(tmp_path / "them", checkpoints, "global_step500")
    (folder / "global_step1000").mkdir()
    for name in files:
        (folder / "global_step1000" / name).touch()
    config = tiny_config(tmp_path, folder)
    with pytest.raises(InputError, match=rf"global_step1000 without config\.json, {words}"):
        prepare_sweep(config)
    assert prepare_sweep(replace(config, steps=[500])).steps == (500,)


def test_models_of_different_widths_are_no_one_run(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "step1")
    model(hidden_size=32).save_pretrained(folder / "step2")
    with pytest.raises(InputError, match=r"different models: .*width 32, layers 2 at step 2, .*width 16, .* at step 1"):
        prepare_sweep(tiny_config(tmp_path, folder))


def test_checkpoints_that_are_only_numbered_have_no_place_on_an_axis_of_steps(checkpoints, tmp_path):
    folder = named(tmp_path / "them", checkpoints, "ckpt_000", "ckpt_001")
    config = tiny_config(tmp_path, folder, name_tokens={"ckpt_000": 3.5e9, "ckpt_001": 7e9})
    with pytest.raises(
        InputError, match=r"axis=steps and checkpoints ckpt_000, ckpt_001.*name_steps, or --axis tokens"
    ):
        prepare_sweep(config)
    assert prepare_sweep(replace(config, axis="tokens")).steps == (0, 1)
    assert prepare_sweep(replace(config, name_steps={"ckpt_001": 2000})).steps == (2000,)


def test_a_dry_run_tells_which_checkpoints_there_are_and_what_is_missing(checkpoints, tmp_path):
    config = tiny_config(tmp_path, checkpoints, steps=[4, 1, 9], tokens_per_step=1000)
    lines = dry_run(prepare_sweep(config)).splitlines()
    assert lines[0] == "no checkpoint of step 9; going on with the 2 found"
    assert lines[1] == "Checkpoints: step1 (step 1, 1,000 tokens), step4 (step 4, 4,000 tokens)"
    assert lines[2].startswith("2 cells of ")


# Tokenizers


def test_a_token_beyond_the_embedding_that_no_text_holds_changes_nothing(checkpoints, tmp_path):
    """As where a padding token was added for fine-tuning, and the model not resized."""
    folder = named(tmp_path / "them", checkpoints, "step1")
    plain = prepare_sweep(tiny_config(tmp_path, folder))
    padded = tokenizer.__wrapped__()
    padded.add_tokens([f"<unused{number}>" for number in range(40)])
    padded.add_special_tokens({"pad_token": "[PAD]"})
    assert len(padded) > SIZE["vocab_size"]
    padded.save_pretrained(folder)
    found = prepare_sweep(tiny_config(tmp_path, folder))
    assert torch.equal(found.data.observed["input_ids"], plain.data.observed["input_ids"])


def test_a_tokenizer_whose_ids_have_gaps_is_read(tmp_path):
    folder = save_checkpoints(tmp_path / "them", steps=[1])
    inner = (folder / "tokenizer.json").read_text()
    # The last token of the text's moves up: between it and the others there is no token.
    it = tokenizer()
    last = it.convert_ids_to_tokens(len(it) - 1)
    assert inner.count(f": {len(it) - 1},") + inner.count(f": {len(it) - 1}\n") == 1, last
    (folder / "tokenizer.json").write_text(inner.replace(f": {len(it) - 1}\n", ": 315\n"))
    sweep = prepare_sweep(tiny_config(tmp_path, folder))
    assert set(sweep.data.groups) == {"induction", "delimiter", "rest"}
