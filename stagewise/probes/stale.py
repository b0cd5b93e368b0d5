"""Losses that remember other weights are refused: a chain moves weights, and what came of them before is stale."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from stagewise.batches import Batch
from stagewise.errors import LossContractError
from stagewise.isolation import restored, with_weights
from stagewise.isolation.snapshot import Snapshot
from stagewise.losses import LossFn, evaluate
from stagewise.sampling.entries import Selection
from stagewise.sampling.weights import FlatWeights

DISPLACEMENT = 1e-2
"""Of the weights that the check looks at, over their root mean square."""

ROUNDING = 1e-2
"""Share of the change of the losses that accelerators may round otherwise; on a CPU none is let pass."""


def check_stale(
    loss_fn: LossFn,
    module: nn.Module,
    batch: Batch,
    selection: Selection = None,
    *,
    forward_context: Callable[[], AbstractContextManager] = nullcontext,
) -> None:
    """Hold losses at displaced weights against those that the module gives after it has seen other weights.

    Args:
        loss_fn: per-sample loss.
        module: at w*, in eval mode; left as it was.
        batch: samples to look at.
        selection: which entries of which parameters chains move.
        forward_context: entered around each forward pass: autocast keeps casts of weights until it is left.

    Raises:
        LossContractError: they differ, as where ``forward`` keeps what it has computed from the weights; what it has
            set is named.
    """

    def losses() -> Tensor:
        with forward_context():
            return evaluate(loss_fn, module, batch).values

    def seen(weights: FlatWeights, *, before: Callable[[], object] | None) -> tuple[Tensor, list[str]]:
        def body() -> tuple[Tensor, list[str]]:
            snapshot = Snapshot(module)
            if before is not None:
                before()
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(len(weights.state), generator=generator).to(weights.state)
            weights.state.add_(noise, alpha=DISPLACEMENT * float(weights.state.square().mean().sqrt()))
            weights.publish()
            return losses(), snapshot.changed()

        with restored(module):
            return with_weights(module, weights.leaves, body)

    with torch.no_grad():
        want, _ = seen(FlatWeights(module, selection), before=None)
        got, changed = seen(FlatWeights(module, selection), before=losses)
        if torch.equal(got.nan_to_num(), want.nan_to_num()):
            return
        with restored(module):
            moved = (want - losses()).abs().max()
    if want.device.type != "cpu" and bool((got - want).abs().max() <= ROUNDING * moved):
        return
    told = f" ({', '.join(changed[:3])})" if changed else ""
    raise LossContractError(
        f"got a loss that depends on weights which the module had before: forward keeps what it has computed{told}; "
        "expected one of the present weights alone; compute it anew where self.training is False, or leave these "
        "weights at w* by SGLDConfig(parameters=[...])"
    )
