import json

import pytest
import torch
import torch.nn.functional as F

from stagewise.errors import InputError
from stagewise.runs.open import open_run
from stagewise.sweep.find_checkpoints import find_checkpoints
from stagewise.sweep.lens_checkpoints import LensCheckpoints
from stagewise.sweep.sources import FolderCheckpoints, Limits
from tests.sweep.lens_reference import logits, random_state
from tests.sweep.tiny import VOCAB, model, swept, tiny_config, tokenizer

SHAPE = {"vocab": VOCAB, "context": 32}


def save(folder, names, *, nested=None, **shape):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        state = random_state(seed=seed, **SHAPE, **shape)
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        torch.save(state if nested is None else {nested: state, "step": 3}, path)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("nested", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("names", [("step_5.pth", "step_9.pth"), ("step5/model.pt", "step9/model.pt")])
def test_files_are_found_by_their_step_and_loaded_as_the_same_function(tmp_path, names, nested):
    folder = save(tmp_path / "them", names, nested=nested)
    (folder / "config.json").write_text(json.dumps({"act_fn": "relu"}))
    source = find_checkpoints(tiny_config(tmp_path, folder))
    assert isinstance(source, LensCheckpoints)
    assert source.steps() == [5, 9]
    assert source.limits(9) == Limits(VOCAB, 32)
    before = torch.get_rng_state()
    found = source.load(9).eval()
    assert torch.equal(torch.get_rng_state(), before)
    ids = torch.arange(20)
    expected = logits(random_state(seed=1, **SHAPE), ids, act=F.relu)
    with torch.no_grad():
        torch.testing.assert_close(found(input_ids=ids[None]).logits[0], expected, atol=2e-4, rtol=1e-4)
    assert source.identity(5) != source.identity(9)


@pytest.mark.parametrize("learned", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_sweep_runs_over_state_dicts(tmp_path, learned):
    folder = save(tmp_path / "them", ["step5.pth", "step9.pth"], learned=learned)
    if not learned:
        settings = {"act_fn": "gelu", "rotary_dim": 4, "n_ctx": 32, "parallel_attn_mlp": True}
        (folder / "config.json").write_text(json.dumps(settings))
    sweep = swept(tiny_config(tmp_path, folder, components=["all", "layer0.head1"]))
    assert sweep.steps == (5, 9)
    assert open_run(tmp_path / "out")["step"].values.tolist() == [5, 9]
    assert (tmp_path / "out" / "components.csv").is_file()


def test_checkpoints_of_hugging_face_go_before_files_beside_them(tmp_path):
    folder = save(tmp_path / "them", ["step5.pth"])
    model(seed=1).save_pretrained(folder / "checkpoint-7")
    (folder / "checkpoint-7" / "optimizer.pt").write_bytes(b"")
    source = find_checkpoints(tiny_config(tmp_path, folder))
    assert isinstance(source, FolderCheckpoints)
    assert source.steps() == [7]


def test_other_files_are_refused_with_what_is_in_them(tmp_path):
    folder = save(tmp_path / "them", [])
    torch.save({"module": {"a": torch.ones(1)}, "optimizer": None}, folder / "global_step5.pt")
    with pytest.raises(InputError, match=r"global_step5.pt with module, optimizer; expected the state dict of a"):
        find_checkpoints(tiny_config(tmp_path, folder)).load(5)
    (folder / "global_step5.pt").write_bytes(b"no pickle")
    with pytest.raises(InputError, match=r"global_step5.pt, which cannot be read") as caught:
        find_checkpoints(tiny_config(tmp_path, folder)).limits(5)
    assert "\n" not in str(caught.value)
