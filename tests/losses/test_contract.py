import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from stagewise.errors import InputError, LossContractError
from stagewise.losses.contract import check_finite, check_loss, check_some, evaluate, resolve_loss

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


def test_explicit_loss_goes_before_the_modules_own():
    assert resolve_loss(Own(), squared) is squared


def test_own_loss_goes_before_a_language_model_inside():
    module = Own()
    module.lm = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=16, n_layer=1, n_head=2))
    assert torch.equal(resolve_loss(module)(module, (X, Y)), squared(module, (X, Y)))


def test_module_without_a_loss_is_told_all_three_ways():
    with pytest.raises(TypeError) as caught:
        resolve_loss(nn.Linear(3, 1))
    assert isinstance(caught.value, InputError)
    for word in ("loss_fn(module, batch)", "per_sample_loss", "Hugging Face", "Linear"):
        assert word in str(caught.value)


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


def test_samples_that_are_not_finite_are_named_by_their_number_in_the_set():
    losses = evaluate(lambda m, b: torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [0.0, float("inf")]]), None, X[:3])
    with pytest.raises(LossContractError, match=r"got 2 losses of 6 that are not finite, in samples 11, 12 of the set"):
        check_finite(losses, "the set", start=10)


def test_a_set_needs_one_loss_and_no_more():
    check_some(torch.tensor([False, True]))
    with pytest.raises(LossContractError, match="got an observed set of 2 samples with a mask that leaves no loss"):
        check_some(torch.zeros(2, 3, dtype=torch.bool), "an observed set")


def test_the_mean_of_no_loss_is_zero_with_a_gradient_of_zero():
    values = torch.ones(2, 3, requires_grad=True)
    losses = evaluate(lambda m, b: (values * 2, torch.zeros(2, 3)), None, X[:2])
    losses.mean().backward()
    assert losses.mean() == 0
    assert (values.grad == 0).all()


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
