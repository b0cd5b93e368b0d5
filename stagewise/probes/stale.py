"""Losses that remember other weights are refused: a chain moves weights, and what came of them before is stale."""

import torch
from torch import Tensor, nn

from stagewise.batches import Batch
from stagewise.errors import LossContractError
from stagewise.isolation import restored, with_weights
from stagewise.isolation.snapshot import Snapshot
from stagewise.sampling.target import Target
from stagewise.sampling.weights import FlatWeights

DISPLACEMENT = 1e-2
"""Of the weights that the check looks at, over their root mean square."""

ROUNDING = 1e-3
"""Share of the change of the losses that may come of rounding: of accelerators, or of a largest norm put on again."""


def check_stale(
    module: nn.Module,
    target: Target,
    batch: Batch,
) -> None:
    """Hold losses at displaced weights against those that the module gives after it has seen other weights.

    Args:
        module: at w*, in eval mode; left as it was.
        target: loss, and what moves; its ``forward_context`` is left in between, as autocast keeps casts of weights.
        batch: samples to look at.

    Raises:
        LossContractError: they differ, as where ``forward`` keeps what it has computed from the weights; what it has
            set is named.
    """

    def losses() -> Tensor:
        return target.evaluate(module, batch).values

    def seen(*, displaced: bool, before: bool) -> tuple[Tensor, list[str]]:
        weights = FlatWeights(module, target.selection)

        def body() -> tuple[Tensor, list[str]]:
            snapshot = Snapshot(module)
            if before:
                losses()
                # A forward pass may write to the weights that it is given: to clip them, say.
                weights.reset()
            if displaced:
                noise = torch.randn(len(weights.state), generator=torch.Generator().manual_seed(0)).to(weights.state)
                weights.state.add_(noise, alpha=DISPLACEMENT * float(weights.state.square().mean().sqrt()))
                weights.publish()
            return losses(), snapshot.changed()

        with restored(module):
            return with_weights(module, weights.leaves, body)

    with torch.no_grad():
        want, _ = seen(displaced=True, before=False)
        got, changed = seen(displaced=True, before=True)
        if torch.equal(got.nan_to_num(), want.nan_to_num()):
            return
        here, _ = seen(displaced=False, before=False)
    if bool((got - want).abs().max() <= ROUNDING * (want - here).abs().max()):
        return
    told = f" ({', '.join(changed[:3])})" if changed else ""
    raise LossContractError(
        f"got a loss that depends on weights which the module had before: forward keeps what it has computed{told}; "
        "expected one of the present weights alone; compute it anew where self.training is False, or leave these "
        "weights at w* by SGLDConfig(parameters=[...])"
    )
