import pytest
import torch

from stagewise.errors import InputError
from stagewise.lm.ablation import head_ablated
from stagewise.lm.copying import ov_weights
from stagewise.lm.module import build_model
from tests.lm.test_copying import CONFIGS

IDS = torch.arange(16).view(2, 8)


@pytest.fixture(params=sorted(CONFIGS))
def model(request):
    torch.manual_seed(0)
    return build_model(request.param, config=CONFIGS[request.param], init_std=0.3).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_equals_a_model_whose_head_has_zero_output_weights(model):
    """The independent truth: the same model with the head's columns of W_O set to zero."""
    with head_ablated(model, 1, 2):
        ablated = logits(model)
    with torch.no_grad():
        ov_weights(model)[1][1][2].zero_()  # a view of the weights
    torch.testing.assert_close(ablated, logits(model), atol=1e-6, rtol=1e-5)


def test_changes_the_answer_inside_and_leaves_the_model_as_it_was(model):
    before = logits(model)
    with head_ablated(model, 0, 3):
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)


def test_the_head_is_back_after_an_exception(model):
    before = logits(model)
    with pytest.raises(RuntimeError), head_ablated(model, 0, 0):
        raise RuntimeError
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(("layer", "head"), [(2, 0), (0, 4), (-1, 0)])
def test_a_head_that_is_not_there_is_refused(model, layer, head):
    with pytest.raises(InputError, match="expected 0 to"), head_ablated(model, layer, head):
        pass


def test_an_unknown_architecture_is_refused():
    model = build_model(
        "opt",
        config={"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 8},
    )
    with pytest.raises(InputError, match="opt"), head_ablated(model, 0, 0):
        pass
