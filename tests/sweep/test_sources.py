import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stagewise.errors import InputError
from stagewise.lm.module import CausalLM
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.runs.open import open_run
from stagewise.sweep.find_checkpoints import check_limits, find_checkpoints
from stagewise.sweep.lightning_files import lightning_files
from stagewise.sweep.results import write_results
from stagewise.sweep.sources import FolderCheckpoints, Limits
from stagewise.sweep.study import prepare_sweep, run_cells
from tests.sweep.tiny import FAMILIES, OTHERS, VOCAB, model, save_checkpoints, tiny_config

MODEL = {
    "class_path": "stagewise.lm.module.CausalLM",
    "init_args": {"model_type": "gpt_neox", "config": FAMILIES["gpt_neox"]},
}


def silent(_: str) -> None:
    pass


QUICK = ("gpt2", "llama", "gemma", "olmo", "phi", "mixtral")
"""With layouts of their own; the others have that of one of these."""


@pytest.mark.parametrize(
    "family",
    [*QUICK, *(pytest.param(item, marks=pytest.mark.slow) for item in ("qwen2", *OTHERS) if item not in QUICK)],
)
def test_a_sweep_runs_over_each_family(family, tmp_path):
    begins = family in ("llama", "gemma")
    config = tiny_config(tmp_path, save_checkpoints(tmp_path / "them", [20], family, begins))
    sweep = prepare_sweep(config)
    assert (sweep.bos_token_id is not None) == begins
    run_cells(sweep, silent)
    write_results(sweep)
    run = open_run(config.output)
    assert run["step"].values.tolist() == [20]
    losses = causal_lm_loss(model(family, seed=20).eval(), sweep.data.observed)[0].detach()
    for name, group in sweep.data.groups.items():
        found = float(run["group_loss"].sel(step=20, group=name))
        assert found == pytest.approx(float(losses[group].mean()), rel=1e-5)
    rows = (tmp_path / "out" / "circuits.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2


def test_weights_are_float32_whatever_they_were_saved_in(tmp_path):
    model(seed=1).half().save_pretrained(tmp_path / "step7")
    module = FolderCheckpoints(tmp_path).load(7)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    expected = model(seed=1).half().float().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in module.state_dict().items())


def test_the_layout_that_the_public_checkpoints_of_pythia_have_is_read(tmp_path):
    """Pickled, in half precision, with an older name of the unembedding and buffers that no model has any more."""
    whole = model(seed=1)
    state = {name: value.half() for name, value in whole.state_dict().items()}
    state["embed_out.weight"] = state.pop("lm_head.weight")
    for layer in range(2):
        state[f"gpt_neox.layers.{layer}.attention.bias"] = torch.ones(1, 1, 32, 32, dtype=torch.bool)
        state[f"gpt_neox.layers.{layer}.attention.masked_bias"] = torch.tensor(-1e9)
    whole.config.save_pretrained(tmp_path / "step512")
    torch.save(state, tmp_path / "step512" / "pytorch_model.bin")
    found = FolderCheckpoints(tmp_path).load(512).get_output_embeddings().weight
    assert torch.equal(found, whole.get_output_embeddings().weight.half().float())


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    model().base_model.save_pretrained(tmp_path / "step7")
    with pytest.raises(InputError, match=r"lacks 1 weights of a GPTNeoXForCausalLM, lm_head\.weight among them"):
        FolderCheckpoints(tmp_path).load(7)


@pytest.mark.parametrize(("broken", "how"), [("config.json", "limits"), ("model.safetensors", "load")])
def test_a_checkpoint_that_cannot_be_read_is_named_in_one_line(tmp_path, broken, how):
    save_checkpoints(tmp_path, steps=[7])
    (tmp_path / "step7" / broken).write_text("no such thing")
    with pytest.raises(InputError, match=r"step7, which cannot be loaded \(") as caught:
        getattr(FolderCheckpoints(tmp_path), how)(7)
    assert "\n" not in str(caught.value)


def test_steps_are_those_of_the_subfolders_in_the_order_of_numbers(tmp_path):
    for name in ("step10", "step9", "step100", "stepx", "other"):
        (tmp_path / name).mkdir()
    assert FolderCheckpoints(tmp_path).steps() == [9, 10, 100]


def test_checkpoints_of_different_models_are_refused(tmp_path):
    save_checkpoints(tmp_path, steps=[1])
    model(vocab_size=VOCAB + 1).save_pretrained(tmp_path / "step2")
    with pytest.raises(InputError, match=r"different models.*at step 2"):
        check_limits(FolderCheckpoints(tmp_path), [1, 2])


def test_a_folder_without_a_tokenizer_asks_for_one(tmp_path):
    model().save_pretrained(tmp_path / "them" / "step1")
    with pytest.raises(InputError, match="without a tokenizer"):
        prepare_sweep(tiny_config(tmp_path, tmp_path / "them"))


def test_the_tokenizer_may_be_beside_the_weights_or_in_a_file(tmp_path):
    folder = save_checkpoints(tmp_path / "them", steps=[1])
    shutil.move(folder / "tokenizer.json", folder / "step1" / "tokenizer.json")
    shutil.move(folder / "tokenizer_config.json", folder / "step1" / "tokenizer_config.json")
    beside = prepare_sweep(tiny_config(tmp_path, folder))
    config = tiny_config(tmp_path, folder)
    file = replace(config.data, tokenizer=str(folder / "step1" / "tokenizer.json"))
    given = prepare_sweep(replace(config, data=file))
    assert torch.equal(beside.data.observed["input_ids"], given.data.observed["input_ids"])


# Lightning's files


def save_lightning(path: Path, step: int, **changed) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(step)
        module = CausalLM(**MODEL["init_args"])
    torch.save({"global_step": step, "state_dict": module.state_dict(), **changed}, path)


def test_lightning_files_are_found_by_name_or_by_what_is_inside(tmp_path):
    save_lightning(tmp_path / "a" / "epoch=0-step=20.ckpt", 999)
    save_lightning(tmp_path / "a" / "last.ckpt", 20)
    save_lightning(tmp_path / "first.ckpt", 3)
    source = find_checkpoints(tiny_config(tmp_path, tmp_path, model=MODEL))
    assert source.steps() == [3, 20]
    assert source.files[20].name == "epoch=0-step=20.ckpt"
    assert source.limits(3) == Limits(VOCAB, 32, width=16, layers=2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = CausalLM(**MODEL["init_args"]).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in source.load(3).state_dict().items())
    assert find_checkpoints(tiny_config(tmp_path, tmp_path / "first.ckpt", model=MODEL)).steps() == [3]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["a-step=2.ckpt", "b-step=2.ckpt"], "two checkpoints of step 2"),
        (["broken.ckpt"], "cannot be read"),
    ],
)
def test_lightning_files_that_cannot_be_told_apart_or_read_are_named(tmp_path, files, words):
    for name in files:
        (tmp_path / name).write_bytes(b"no")
    with pytest.raises(InputError, match=words):
        lightning_files(list(tmp_path.glob("*.ckpt")))


def test_lightning_files_without_a_step_are_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="without a step"):
        lightning_files([tmp_path / "x.ckpt"])


def test_weights_of_another_model_are_refused(tmp_path):
    save_lightning(tmp_path / "step=2.ckpt", 2)
    other = {**MODEL, "init_args": {"model_type": "gpt_neox", "config": FAMILIES["gpt_neox"] | {"hidden_size": 32}}}
    with pytest.raises(InputError, match=r"not those of model stagewise\.lm\.module\.CausalLM"):
        find_checkpoints(tiny_config(tmp_path, tmp_path, model=other)).load(2)
