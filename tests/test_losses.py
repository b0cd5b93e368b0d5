import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2Model

from stagewise.errors import InputError, LossContractError
from stagewise.losses import causal_lm_loss, check_loss, evaluate, resolve_loss

X, Y = torch.randn(6, 3), torch.randn(6, 1)


def squared(module, batch):
    return ((module(batch[0]) - batch[1]) ** 2).sum(1)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x)

    def per_sample_loss(self, batch):
        return squared(self, batch)


def tiny_lm(kind="gpt_neox"):
    sizes = {
        "gpt_neox": dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32),
        "gpt2": dict(n_embd=16, n_layer=1, n_head=2),
        "llama": dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32),
    }[kind]
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=11, **sizes)).eval()


def test_explicit_loss_goes_before_the_modules_own():
    assert resolve_loss(Own(), squared) is squared


def test_own_loss_goes_before_a_language_model_inside():
    module = Own()
    module.lm = tiny_lm()
    assert torch.equal(resolve_loss(module)(module, (X, Y)), squared(module, (X, Y)))


@pytest.mark.parametrize("kind", ["gpt_neox", "gpt2", "llama"])
def test_language_model_is_found_inside_a_module(kind):
    module = nn.Module()
    module.inner = nn.ModuleDict({"lm": tiny_lm(kind)})
    ids = torch.randint(0, 11, (3, 7))
    losses, mask = resolve_loss(module)(module, {"input_ids": ids})
    assert losses.shape == (3, 6)
    assert mask.all()


def test_language_model_without_a_head_is_none():
    with pytest.raises(TypeError):
        resolve_loss(GPT2Model(GPT2Config(vocab_size=11, n_embd=16, n_layer=1, n_head=2)))


def test_module_without_a_loss_is_told_all_three_ways():
    with pytest.raises(TypeError) as caught:
        resolve_loss(nn.Linear(3, 1))
    assert isinstance(caught.value, InputError)
    for word in ("loss_fn(module, batch)", "per_sample_loss", "Hugging Face", "Linear"):
        assert word in str(caught.value)


def test_causal_lm_loss_equals_a_plain_loop():
    model = tiny_lm()
    ids = torch.randint(0, 11, (3, 7))
    losses, _ = causal_lm_loss(model, ids)
    log_probabilities = model(input_ids=ids).logits.log_softmax(-1)
    for sample in range(3):
        for position in range(6):
            want = -log_probabilities[sample, position, ids[sample, position + 1]]
            assert losses[sample, position].item() == pytest.approx(want.item(), abs=1e-5)


def test_causal_lm_loss_agrees_with_the_models_own_mean():
    model = tiny_lm("gpt2")
    ids = torch.randint(0, 11, (4, 9))
    losses, _ = causal_lm_loss(model, {"input_ids": ids})
    assert losses.mean().item() == pytest.approx(model(input_ids=ids, labels=ids).loss.item(), abs=1e-5)


def test_padding_and_ignored_labels_are_masked():
    model = tiny_lm()
    ids = torch.randint(0, 11, (2, 5))
    attention = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    labels = ids.clone()
    labels[0, 1] = -100
    losses = evaluate(causal_lm_loss, model, {"input_ids": ids, "attention_mask": attention, "labels": labels})
    assert losses.mask.tolist() == [[False, True, True, True], [True, True, False, False]]
    assert (losses.values[~losses.mask] == 0).all()
    assert losses.mean().item() == pytest.approx(losses.values[losses.mask].mean().item())


def test_per_sample_sums_tokens():
    losses = evaluate(lambda m, b: torch.ones(6, 4), nn.Linear(3, 1), (X, Y))
    assert losses.per_sample().tolist() == [4.0] * 6


def test_half_precision_losses_come_out_in_float32():
    assert evaluate(lambda m, b: torch.ones(6, dtype=torch.bfloat16), nn.Linear(3, 1), X).values.dtype == torch.float32


@pytest.mark.parametrize(
    ("loss_fn", "words"),
    [
        (lambda m, b: squared(m, b).mean(), "unreduced"),
        (lambda m, b: squared(m, b)[:3], "[6]"),
        (lambda m, b: squared(m, b).sum().item(), "tensor"),
        (lambda m, b: squared(m, b) / 0, "finite"),
        (lambda m, b: squared(m, b).detach(), "gradient"),
        (lambda m, b: squared(m, b) + torch.rand(6), "deterministic"),
        (lambda m, b: (squared(m, b), torch.zeros(6, dtype=torch.bool)), "no loss"),
        (lambda m, b: (squared(m, b), torch.ones(5, dtype=torch.bool)), "mask"),
    ],
)
def test_loss_that_breaks_the_contract_is_refused(loss_fn, words):
    with pytest.raises(LossContractError, match="expected") as caught:
        check_loss(loss_fn, nn.Linear(3, 1), (X, Y))
    assert words in str(caught.value)


def test_good_loss_passes_the_check_also_under_no_grad():
    with torch.no_grad():
        assert check_loss(squared, nn.Linear(3, 1), (X, Y)).values.shape == (6,)


def test_cross_entropy_example_of_the_message_works():
    module = nn.Linear(3, 2)
    labels = torch.zeros(6, dtype=torch.long)
    check_loss(lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"), module, (X, labels))


class Named(torch.Tensor):
    """As monai's MetaTensor: everything that is computed with it is of its class, and it cannot be indexed."""

    def __getitem__(self, index):
        raise ValueError("of no use to index")


def test_losses_and_gradients_of_a_tensor_subclass_are_plain_tensors():
    module = nn.Linear(3, 1)
    mask = torch.tensor([True, False, True, True, True, True]).as_subclass(Named)

    def of_subclass(module, batch):
        return squared(module, (batch[0].as_subclass(Named), batch[1])), mask

    losses = evaluate(of_subclass, module, (X, Y))
    assert type(losses.values) is type(losses.mask) is torch.Tensor
    (gradient,) = torch.autograd.grad(losses.mean(), [module.weight])
    assert type(gradient) is torch.Tensor
    kept = torch.tensor([0, 2, 3, 4, 5])
    plain = torch.autograd.grad(squared(module, (X[kept], Y[kept])).mean(), [module.weight])[0]
    torch.testing.assert_close(gradient, plain)
