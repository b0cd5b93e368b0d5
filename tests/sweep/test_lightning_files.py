import pytest
import torch

from stagewise.errors import InputError
from stagewise.sweep.checkpoint_names import NameRules
from stagewise.sweep.find_checkpoints import find_checkpoints
from stagewise.sweep.lightning_files import lightning_files
from tests.sweep.tiny import SIZE, tiny_config

MODEL = {"class_path": "stagewise.lm.module.CausalLM", "init_args": {"model_type": "gpt_neox", "config": SIZE}}


def save(folder, *names):
    """Files whose content says step 50, 100, 150, ... in this order."""
    for place, name in enumerate(names, start=1):
        path = folder / f"{name}.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": {}, "global_step": 50 * place}, path)
    return sorted(folder.rglob("*.ckpt"))


def told(paths, **rules):
    found = lightning_files(paths, NameRules(**rules), "there")
    return [(step, file.path.stem, file.name.tokens) for step, file in found.items()]


def test_a_run_that_forks_is_refused_and_a_branch_chosen(tmp_path):
    paths = save(tmp_path, "stage1-step=500-tokens2B", "stage2-step=100-tokens1B", "stage2-step=200-tokens2B")
    with pytest.raises(InputError, match=r"2 branches in there: stage1 \(1 of steps 500 to 500\), stage2 \(2 of"):
        lightning_files(paths, where="there")
    assert told(paths, branch="stage2") == [
        (100, "stage2-step=100-tokens1B", 10**9),
        (200, "stage2-step=200-tokens2B", 2 * 10**9),
    ]
    assert told(paths, branch="stage1+stage2") == [
        (500, "stage1-step=500-tokens2B", 2 * 10**9),
        (600, "stage2-step=100-tokens1B", 3 * 10**9),
        (700, "stage2-step=200-tokens2B", 4 * 10**9),
    ]
    with pytest.raises(InputError, match="got branch 'stage3', which there does not have"):
        lightning_files(paths, NameRules(branch="stage3"), "there")


def test_tokens_are_those_of_a_step_or_given_for_names_which_alone_are_taken(tmp_path):
    paths = save(tmp_path, "epoch=0-step=500", "epoch=1-step=1000", "last")
    expected = [(150, "last", 1500), (500, "epoch=0-step=500", 5000), (1000, "epoch=1-step=1000", 10_000)]
    assert told(paths, tokens_per_step=10) == expected
    given = {"epoch=1-step=1000": 7e6, "last": 3e6}
    assert told(paths, tokens=given) == [(150, "last", 3_000_000), (1000, "epoch=1-step=1000", 7_000_000)]
    assert told(paths, steps={"last": 4}) == [(4, "last", None)]


def test_files_that_are_only_numbered_tell_their_step_inside(tmp_path):
    assert told(save(tmp_path, "ckpt_000", "ckpt_001")) == [(50, "ckpt_000", None), (100, "ckpt_001", None)]


def test_a_file_without_a_step_in_its_name_makes_room_for_one_with_it(tmp_path):
    assert told(save(tmp_path, "last", "stage1-step=50")) == [(50, "stage1-step=50", None)]


def test_the_rules_of_names_reach_a_sweep_over_files_and_links_to_folders(tmp_path):
    save(tmp_path / "elsewhere", "stage1-step=500", "stage2-step=100")
    (tmp_path / "them").mkdir()
    (tmp_path / "them" / "version_0").symlink_to(tmp_path / "elsewhere")
    config = tiny_config(tmp_path, tmp_path / "them", model=MODEL, branch="stage1+stage2", tokens_per_step=10)
    source = find_checkpoints(config)
    assert source.steps() == [500, 600]
    assert [source.name_of(step).tokens for step in source.steps()] == [5000, 6000]
    with pytest.raises(InputError, match="there is none of those in name_steps"):
        find_checkpoints(tiny_config(tmp_path, tmp_path / "them", model=MODEL, name_steps={"stage7": 1}))


def test_shards_are_told_so_where_their_folder_is_named(tmp_path):
    (tmp_path / "a.ckpt" / "checkpoint").mkdir(parents=True)
    with pytest.raises(InputError, match="it is a folder of shards; expected one file"):
        find_checkpoints(tiny_config(tmp_path, tmp_path / "a.ckpt", model=MODEL))
