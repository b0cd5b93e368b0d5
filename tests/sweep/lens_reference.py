"""A plain forward pass over a state dict of TransformerLens, head by head, as its documentation defines it."""

import math

import torch
import torch.nn.functional as F


def random_state(*, learned=True, heads=2, width=16, inner=24, layers=2, vocab=30, context=12, norm=True, seed=0):
    """Weights by TransformerLens's names and shapes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=0.4):
        return scale * torch.randn(shape, generator=generator)

    size = width // heads
    state = {"embed.W_E": draw(vocab, width), "unembed.W_U": draw(width, vocab), "unembed.b_U": torch.zeros(vocab)}
    if learned:
        state["pos_embed.W_pos"] = draw(context, width)
    norms = ["ln_final"]
    for layer in range(layers):
        start = f"blocks.{layer}"
        norms += [f"{start}.ln1", f"{start}.ln2"]
        for part in "QKV":
            state[f"{start}.attn.W_{part}"] = draw(heads, width, size)
            state[f"{start}.attn.b_{part}"] = draw(heads, size)
        state |= {f"{start}.attn.W_O": draw(heads, size, width), f"{start}.attn.b_O": draw(width)}
        state |= {f"{start}.mlp.W_in": draw(width, inner), f"{start}.mlp.b_in": draw(inner)}
        state |= {f"{start}.mlp.W_out": draw(inner, width), f"{start}.mlp.b_out": draw(width)}
        state[f"{start}.attn.mask"] = torch.tril(torch.ones(context, context)).bool()
        state[f"{start}.attn.IGNORE"] = torch.tensor(float("-inf"))
    if norm:
        for name in norms:
            state |= {f"{name}.w": 1 + draw(width), f"{name}.b": draw(width)}
    return state


def rotated(values, rotary_dim, base=10000.0):
    """``[position, value]``; the first and second half of the rotated values are pairs."""
    half = rotary_dim // 2
    out = values.clone()
    for position in range(len(values)):
        for at in range(half):
            angle = position / base ** (2 * at / rotary_dim)
            first, second = values[position, at], values[position, at + half]
            out[position, at] = first * math.cos(angle) - second * math.sin(angle)
            out[position, at + half] = second * math.cos(angle) + first * math.sin(angle)
    return out


def logits(state, ids, *, act, eps=1e-5, rotary_dim=None, parallel=False):
    """``[position, token]`` of one sequence."""
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return scaled * state[f"{name}.w"] + state[f"{name}.b"] if f"{name}.w" in state else scaled

    def attend(x, start):
        total = state[f"{start}.b_O"].expand(len(ids), -1).clone()
        for head in range(len(state[f"{start}.W_Q"])):
            query, key, value = (
                x @ state[f"{start}.W_{item}"][head] + state[f"{start}.b_{item}"][head] for item in "QKV"
            )
            if rotary_dim is not None:
                query, key = rotated(query, rotary_dim), rotated(key, rotary_dim)
            scores = query @ key.T / math.sqrt(query.shape[-1])
            scores = scores.masked_fill(~torch.tril(torch.ones_like(scores)).bool(), -math.inf)
            total += scores.softmax(-1) @ value @ state[f"{start}.W_O"][head]
        return total

    def mlp(x, start):
        return (
            act(x @ state[f"{start}.W_in"] + state[f"{start}.b_in"]) @ state[f"{start}.W_out"] + state[f"{start}.b_out"]
        )

    x = state["embed.W_E"][ids]
    if "pos_embed.W_pos" in state:
        x = x + state["pos_embed.W_pos"][: len(ids)]
    for layer in range(layers):
        start = f"blocks.{layer}"
        attended = attend(norm(x, f"{start}.ln1"), f"{start}.attn")
        read = x if parallel else x + attended
        x = x + attended + mlp(norm(read, f"{start}.ln2"), f"{start}.mlp")
    return norm(x, "ln_final") @ state["unembed.W_U"]


def gelu_new(x):
    return F.gelu(x, approximate="tanh")
