"""Network of the toy as a LightningModule."""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from stagewise.errors import require
from stagewise.toy.descent import Weights
from stagewise.toy.initialisation import gaussian_weights


class DeepLinear(pl.LightningModule):
    """y = second first x, without biases, trained by plain gradient descent from small Gaussian weights.

    Attributes:
        first: items to hidden units.
        second: hidden units to properties.
    """

    def __init__(
        self,
        num_items: int,
        num_properties: int,
        hidden: int = 32,
        init_std: float = 1e-3,
        lr: float = 0.02,
        seed: int = 0,
    ) -> None:
        """Draws the initial weights, in float64 (train with ``precision: 64-true``).

        Args:
            num_items: length of the one-hot inputs.
            num_properties: length of the outputs.
            hidden: hidden units.
            init_std: standard deviation of the initial weights.
            lr: learning rate of gradient descent.
            seed: of the initial weights, which have their own generator.

        Raises:
            InputError: a setting out of range.
        """
        super().__init__()
        require(lr > 0, "lr", lr, "more than 0", "0.02 is usual")
        require(seed >= 0, "seed", seed, "0 or more", "0 will do")
        self.lr = lr
        generator = torch.Generator().manual_seed(seed)
        drawn = gaussian_weights(num_items, num_properties, hidden=hidden, std=init_std, generator=generator)
        # On the meta device, since PyTorch's initialisation would draw from the global generator.
        self.first = nn.Linear(num_items, hidden, bias=False, device="meta")
        self.second = nn.Linear(hidden, num_properties, bias=False, device="meta")
        self.first.weight, self.second.weight = (nn.Parameter(part) for part in drawn)

    @property
    def weights(self) -> Weights:
        """Copy of the weights."""
        return Weights(self.first.weight.detach().clone(), self.second.weight.detach().clone())

    def forward(self, items: Tensor) -> Tensor:
        """Maps items ``[sample, item]`` to properties ``[sample, property]``."""
        return self.second(self.first(items))

    def per_sample_loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Returns half the squared error ``[sample]``, nats (minus a unit Gaussian's log likelihood, up to a constant).

        Args:
            batch: items ``[sample, item]`` and their features ``[sample, property]``.
        """
        items, features = batch
        return ((self(items) - features) ** 2).sum(dim=-1) / 2

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the mean loss of a batch, nats; logged as ``train/loss``."""
        loss = self.per_sample_loss(batch).mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns plain gradient descent as optimizer."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)
