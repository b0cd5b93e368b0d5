"""Losses without the logits of all tokens against those with them."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from stagewise.losses import chunked_head
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.losses.chunked_head import LEAST_LOGITS, chunked_cross_entropy, hidden_states, plain_head
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from tests.lm_families import SETTINGS, VOCAB, build

CHANGES_ITS_LOGITS = {"Gemma2ForCausalLM"}
HAS_A_BIAS = {"BertLMHeadModel", "RobertaForCausalLM", "XLNetLMHeadModel"}


@pytest.fixture
def chunks(monkeypatch):
    """Chunks of 5 tokens, for every batch."""
    monkeypatch.setattr(chunked_head, "LEAST_LOGITS", 0)
    monkeypatch.setattr(chunked_head, "_CHUNK_LOGITS", 5 * VOCAB)


class Widest(TorchDispatchMode):
    """Largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        answer = function(*args, **(kwargs or {}))
        if isinstance(answer, torch.Tensor):
            self.numel = max(self.numel, answer.numel())
        return answer


def padded(ids):
    attention = torch.ones_like(ids)
    attention[1, 6:] = 0
    labels = ids.clone()
    labels[2, 2:5] = -100
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


def both(model, batch, monkeypatch):
    """Losses, mask and gradients: with all logits, and in chunks."""
    found = []
    for least in (10**9, 0):
        monkeypatch.setattr(chunked_head, "LEAST_LOGITS", least)
        losses, mask = causal_lm_loss(model, batch)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        slope = torch.rand(losses.shape, generator=torch.Generator().manual_seed(0))
        gradients = torch.autograd.grad((losses * slope).sum(), weights, materialize_grads=True, allow_unused=True)
        found.append((losses.detach(), mask, gradients))
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_and_gradients_of_many_models_are_those_with_all_logits(name, chunks, monkeypatch):
    model = build(name)
    ids = torch.randint(4, VOCAB, (4, 9), generator=torch.Generator().manual_seed(1))
    whole, cut = both(model, padded(ids), monkeypatch)
    assert torch.equal(whole[1], cut[1])
    torch.testing.assert_close(cut[0], whole[0], rtol=2e-6, atol=2e-6)
    for left, right in zip(cut[2], whole[2], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_is_cut_where_its_logits_are_one_product(name, chunks):
    model = build(name)
    head = plain_head(model, 36)
    hidden = None if head is None else hidden_states(model, head, {"input_ids": torch.randint(4, VOCAB, (4, 9))})
    assert (hidden is not None) == (name not in CHANGES_ITS_LOGITS | HAS_A_BIAS)
    if name in CHANGES_ITS_LOGITS:
        assert plain_head(model, 36) is None, "it is not tried again"


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_heads_have_their_own_gradients_and_second_derivatives(tied, chunks, monkeypatch):
    model = build("GPTNeoXForCausalLM", tie_word_embeddings=tied, attn_implementation="eager")
    given, taken = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (given is taken) == tied
    ids = torch.randint(4, VOCAB, (3, 8))
    products = []
    for least in (10**9, 0):
        monkeypatch.setattr(chunked_head, "LEAST_LOGITS", least)
        weights = list(model.parameters())
        loss = causal_lm_loss(model, ids)[0].mean()
        slopes = torch.autograd.grad(loss, weights, create_graph=True)
        directions = [torch.ones_like(weight) for weight in weights]
        products.append((slopes, torch.autograd.grad(slopes, weights, directions)))
    for left, right in zip(products[1], products[0], strict=True):
        for mine, theirs in zip(left, right, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_product_in_chunks_is_the_product(dtype, monkeypatch):
    monkeypatch.setattr(chunked_head, "_CHUNK_LOGITS", 7 * 50)
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(40, 12, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(50, 12, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(50, (40,), generator=generator)
    targets[[3, 39]] = -100
    slope = torch.rand(40, generator=generator)
    losses = chunked_cross_entropy(hidden, weight, targets, ignored=-100)
    assert losses.dtype is torch.float32
    assert losses[3] == losses[39] == 0
    exact = F.cross_entropy((hidden.double() @ weight.double().T), targets, reduction="none")
    bound = {torch.float64: 2e-6, torch.float32: 4e-6, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(losses.double(), exact, rtol=bound, atol=bound)
    mine = torch.autograd.grad((losses * slope).sum(), (hidden, weight))
    theirs = torch.autograd.grad((exact * slope).sum(), (hidden, weight))
    for left, right in zip(mine, theirs, strict=True):
        assert left.dtype is dtype
        torch.testing.assert_close(left.double(), right.double(), rtol=5 * bound, atol=5 * bound)


def test_a_frozen_head_or_frozen_body_gets_no_gradient():
    hidden, weight = torch.randn(6, 3, requires_grad=True), torch.randn(8, 3, requires_grad=True)
    targets = torch.arange(6)
    alone = chunked_cross_entropy(hidden, weight.detach(), targets, ignored=-100).sum()
    (of_hidden,) = torch.autograd.grad(alone, hidden, create_graph=True)
    assert torch.autograd.grad(of_hidden.sum(), hidden)[0].abs().sum() > 0
    loss = chunked_cross_entropy(hidden.detach(), weight, targets, ignored=-100).sum()
    assert torch.autograd.grad(loss, weight)[0].shape == weight.shape


def test_autocast_has_the_precision_of_the_plain_layer(chunks, monkeypatch):
    model = build("LlamaForCausalLM")
    batch = padded(torch.randint(4, VOCAB, (4, 9)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole, cut = both(model, batch, monkeypatch)
    torch.testing.assert_close(cut[0], whole[0], rtol=1e-5, atol=1e-5)
    for left, right in zip(cut[2], whole[2], strict=True):
        torch.testing.assert_close(left, right, rtol=2e-2, atol=2e-2)


def test_no_tensor_is_as_large_as_the_logits(monkeypatch):
    model, ids = build("GPT2LMHeadModel", vocab_size=5000), torch.randint(4, VOCAB, (4, 30))
    widest = {}
    for least in (10**9, 0):
        monkeypatch.setattr(chunked_head, "LEAST_LOGITS", least)
        monkeypatch.setattr(chunked_head, "_CHUNK_LOGITS", 10 * 5000)
        with Widest() as watch:
            causal_lm_loss(model, ids)[0].mean().backward()
        widest[least] = watch.numel
    assert widest[10**9] == 120 * 5000
    assert widest[0] == 5000 * 16, "the gradient of the layer"


def test_small_batches_training_and_transformed_calls_keep_the_plain_way(monkeypatch):
    model = build("GPTNeoXForCausalLM")
    least = LEAST_LOGITS // VOCAB
    assert plain_head(model, least) is None
    assert plain_head(model, least + 1) is model.get_output_embeddings()
    assert plain_head(model.train(), least + 1) is None
    model.eval()
    seen = []

    def look(x):
        seen.append(plain_head(model, least + 1))
        return x.sum()

    grad(look)(torch.ones(2))
    vmap(look)(torch.ones(2, 2))
    handle = model.get_output_embeddings().register_forward_hook(lambda *_: None)
    seen.append(plain_head(model, least + 1))
    handle.remove()
    assert seen == [None] * 3
    assert plain_head(model, least + 1) is not None


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_chains_draw_the_same_in_chunks(engine, chunks, monkeypatch):
    model, ids = build("GPTNeoXForCausalLM", num_hidden_layers=1), torch.randint(4, VOCAB, (6, 8))
    config = SGLDConfig(
        lr=1e-4, nbeta=10.0, localization=100.0, num_chains=2, num_draws=3, batch_size=2, num_burnin_steps=1,
        num_steps_bw_draws=1, engine=engine,
    )  # fmt: skip
    losses = []
    for least in (10**9, 0):
        monkeypatch.setattr(chunked_head, "LEAST_LOGITS", least)
        losses.append(run_chains(model, causal_lm_loss, observed=ids, sampling=ids, config=config).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-5)
