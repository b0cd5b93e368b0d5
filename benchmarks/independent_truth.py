"""Long chains of the demo's model in plain torch: an independent check that shares no code with stagewise.

    python benchmarks/independent_truth.py FOLDER --device cuda --json OUT.json

FOLDER holds the output of `benchmarks/equilibrium.py --export FOLDER`: weights of some checkpoints with observed set,
sampling set, masks and settings. The model (GPT-NeoX) is reimplemented here and all chains are evaluated at once.
Gradients are those of the *whole* sampling set, so that there is no minibatch heat. Two integrators are used: averaged
noises (Leimkuhler and Matthews) at half of the demo's step, and Euler at a tenth of it. Prints the mean covariance of
the losses of two groups over pairs in different samples, with the sign of influence, and its jackknife error over
chains.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor


def rotated(x: Tensor, base: float) -> Tensor:
    """Applies the rotary position embedding to ``[..., position, dim]``, over the whole head."""
    length, dim = x.shape[-2:]
    rates = base ** (-torch.arange(0, dim, 2, device=x.device, dtype=torch.float32) / dim)
    angle = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * rates
    cos, sin = torch.cat([angle, angle], dim=1).cos(), torch.cat([angle, angle], dim=1).sin()
    turned = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], dim=-1)
    return x * cos + turned * sin


class Chains:
    """Token losses of a GPT-NeoX for many sets of weights at once, from flat weights ``[chain, weight]``."""

    def __init__(self, shapes: dict[str, torch.Size], heads: int, base: float) -> None:
        self.shapes, self.heads, self.base = shapes, heads, base

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Returns weights by name, each with a leading axis of chains."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()], dim=1)
        return {name: part.unflatten(1, shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def losses(self, flat: Tensor, ids: Tensor) -> Tensor:
        """Returns token losses ``[chain, sample, position - 1]`` in nats, of ids ``[sample, position]``."""
        w = self.unpack(flat)

        def linear(x: Tensor, name: str) -> Tensor:
            y = torch.einsum("cnti,coi->cnto", x, w[f"{name}.weight"])
            return y + w[f"{name}.bias"][:, None, None] if f"{name}.bias" in w else y

        def norm(x: Tensor, name: str) -> Tensor:
            z = F.layer_norm(x, x.shape[-1:])
            return z * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]

        h = w["gpt_neox.embed_in.weight"][:, ids]
        chains, samples, length, width = h.shape
        mask = torch.full((length, length), -math.inf, device=h.device).triu(1)
        layer = 0
        while f"gpt_neox.layers.{layer}.attention.dense.weight" in w:
            name = f"gpt_neox.layers.{layer}"
            x = norm(h, f"{name}.input_layernorm")
            fused = linear(x, f"{name}.attention.query_key_value")
            fused = fused.view(chains, samples, length, self.heads, 3 * width // self.heads).transpose(2, 3)
            q, k, v = fused.chunk(3, dim=-1)
            q, k = rotated(q, self.base), rotated(k, self.base)
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask
            mixed = (scores.softmax(dim=-1) @ v).transpose(2, 3).reshape(chains, samples, length, width)
            attended = linear(mixed, f"{name}.attention.dense")
            inner = F.gelu(linear(norm(h, f"{name}.post_attention_layernorm"), f"{name}.mlp.dense_h_to_4h"))
            h = h + attended + linear(inner, f"{name}.mlp.dense_4h_to_h")
            layer += 1
        h = norm(h, "gpt_neox.final_layer_norm")
        head = next(name for name in ("lm_head.weight", "embed_out.weight") if name in w)
        logits = torch.einsum("cnti,coi->cnto", h[:, :, :-1], w[head])
        targets = ids[:, 1:].expand(chains, -1, -1)
        return F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none").view(targets.shape)


def influence(losses: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns minus the mean covariance over pairs in different samples, ``[group, group]``, and its error.

    Args:
        losses: ``[chain, draw, sample, token]``.
        masks: ``[group, sample, token]``.
    """
    sums = torch.einsum("cdst,gst->cdgs", losses.double(), masks.double())
    counts = masks.sum(dim=2).double()
    pairs = counts.sum(1)[:, None] * counts.sum(1)[None] - counts @ counts.T

    def estimate(kept: Tensor) -> Tensor:
        flat = kept.flatten(0, 1)
        centred = flat - flat.mean(dim=0)
        totals = centred.sum(dim=2)
        products = totals.T @ totals - torch.einsum("dgs,dhs->gh", centred, centred)
        return -products / len(flat) / pairs

    number = len(sums)
    without = torch.stack([estimate(torch.cat([sums[:c], sums[c + 1 :]])) for c in range(number)])
    error = ((number - 1) * (without - without.mean(0)).square().mean(0)).sqrt()
    return estimate(sums), error


def sample(
    chains: Chains, anchor: Tensor, found: dict, *, averaged: bool, lr: float, args: argparse.Namespace
) -> Tensor:
    """Samples losses ``[chain, draw, sample, token]`` of the observed set."""
    generator = torch.Generator(anchor.device).manual_seed(args.seed)
    observed, sampling = (found[name].to(anchor.device) for name in ("observed", "sampling"))
    nbeta, localization = found["nbeta"], found["localization"]

    def normal() -> Tensor:
        return torch.randn(args.chains, len(anchor), generator=generator, device=anchor.device)

    w = anchor + normal() / math.sqrt(localization)
    last = normal()
    spacing = max(1, round(1.6 / (lr * localization)))
    burnin = 3 * spacing
    draws = []
    for step in range(burnin + args.draws * spacing):
        gradient = torch.zeros_like(w)
        for part in sampling.split(args.part):
            leaf = w.detach().requires_grad_()
            mean = chains.losses(leaf, part).mean(dim=(1, 2)).sum() * (len(part) / len(sampling))
            gradient += torch.autograd.grad(mean, leaf)[0]
        following = normal()
        noise = (last + following) / 2 if averaged else following
        last = following
        w = w - (lr / 2) * (nbeta * gradient + localization * (w - anchor)) + math.sqrt(lr) * noise
        if step >= burnin and (step - burnin) % spacing == spacing - 1:
            with torch.no_grad():
                draws.append(chains.losses(w, observed).cpu())
    return torch.stack(draws, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--draws", type=int, default=40, help="of each chain")
    parser.add_argument("--part", type=int, default=256, help="samples of the sampling set evaluated at once")
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--euler", type=int, default=3, help="number of checkpoints that also get Euler steps")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    rows = []
    for number, path in enumerate(sorted(args.folder.glob("*.pt"))):
        found = torch.load(path, map_location="cpu")
        weights = found["weights"]
        chains = Chains({name: value.shape for name, value in weights.items()}, found["heads"], found["rope_base"])
        anchor = torch.cat([value.flatten() for value in weights.values()]).to(args.device)
        check = chains.losses(anchor[None], found["observed"].to(args.device))[0].cpu()
        off = float((check - found["losses"]).abs().max())
        if off > 1e-3:
            raise SystemExit(f"{path}: losses at the training weights differ by {off:.2g} nats from the model's own")
        runs = {"leimkuhler_matthews": (True, found["lr"] / 2)}
        if number < args.euler:
            runs["euler"] = (False, found["lr"] / 10)
        for name, (averaged, lr) in runs.items():
            start = time.perf_counter()
            losses = sample(chains, anchor, found, averaged=averaged, lr=lr, args=args)
            value, error = influence(losses, found["masks"])
            seconds = time.perf_counter() - start
            rows.append(
                {
                    "checkpoint": path.stem,
                    "digest": found["digest"],
                    "integrator": name,
                    "groups": found["groups"],
                    "influence": value.tolist(),
                    "error": error.tolist(),
                    "draws": losses.shape[0] * losses.shape[1],
                    "loss_rise": float(losses.mean() - check.mean()),
                    "off": off,
                    "seconds": seconds,
                }
            )
            print(f"{path.stem} {name} ({seconds:.0f} s): {value.tolist()} +- {error.tolist()}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
