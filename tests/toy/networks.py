"""Small deep linear networks for the tests."""

import torch

from stagewise.toy.descent import Weights, item_losses
from stagewise.toy.hierarchy import Hierarchy

SMALL = Hierarchy({"thing": {"animal": ["dog", "cat"], "rock": ["granite"]}})


def targets(hierarchy=SMALL):
    return torch.from_numpy(hierarchy.features.T.copy())


def network(hierarchy=SMALL, *, hidden=4, std=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    items, properties = len(hierarchy.items), len(hierarchy.properties)

    def draw(*shape):
        return std * torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Weights(draw(hidden, items), draw(properties, hidden))


def autograd_run(weights, goal, sample_weights, *, lr, num_steps):
    """One run by autograd and a torch optimizer: what plain matrix algebra is held against."""
    first, second = (part.clone().requires_grad_() for part in weights)
    optimizer = torch.optim.SGD([first, second], lr=lr)
    for _ in range(num_steps):
        optimizer.zero_grad()
        (sample_weights * item_losses(Weights(first, second), goal)).mean().backward()
        optimizer.step()
    return Weights(first.detach(), second.detach())
