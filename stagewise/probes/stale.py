"""Check that the loss does not depend on earlier weights, e.g. by a cache in ``forward``."""

import torch
from torch import Tensor, nn

from stagewise.batches import Batch
from stagewise.errors import LossContractError
from stagewise.isolation import restored
from stagewise.isolation.snapshot import Snapshot
from stagewise.sampling.sharded_weights import weights_of, while_moving
from stagewise.sampling.target import Target

DISPLACEMENT = 1e-2
"""Displacement of the weights in the check, over their root mean square."""

ROUNDING = 1e-3
"""Share of the change of the losses that rounding may cause: by accelerators, or when a maximal norm is reapplied."""


def check_stale(
    module: nn.Module,
    target: Target,
    batch: Batch,
) -> None:
    """Compares losses at displaced weights before and after evaluating other weights.

    Args:
        module: at w*, in eval mode; restored.
        target: loss and moving weights; ``forward_context`` is left in between, since autocast caches casts of weights.
        batch: samples of the check.

    Raises:
        LossContractError: they differ, as with a cache in ``forward``; names attributes that changed.
    """

    def losses() -> Tensor:
        return target.evaluate(module, batch).values

    def seen(*, displaced: bool, before: bool) -> tuple[Tensor, list[str]]:
        weights = weights_of(module, target)

        def body() -> tuple[Tensor, list[str]]:
            snapshot = Snapshot(module)
            if before:
                losses()
                # A forward pass may write to its weights, e.g. to clip them.
                weights.reset()
            if displaced:
                noise = torch.randn(len(weights.state), generator=torch.Generator().manual_seed(0)).to(weights.state)
                weights.state.add_(noise, alpha=DISPLACEMENT * float(weights.state.square().mean().sqrt()))
                weights.publish()
            return losses(), snapshot.changed()

        with restored(module):
            return while_moving(module, weights, body)

    with torch.no_grad():
        want, _ = seen(displaced=True, before=False)
        got, changed = seen(displaced=True, before=True)
        # If all processes evaluate together, none may return early.
        if target.sharding is None and torch.equal(got.nan_to_num(), want.nan_to_num()):
            return
        here, _ = seen(displaced=False, before=False)
    if bool((got - want).abs().max() <= ROUNDING * (want - here).abs().max()):
        return
    where = f" ({', '.join(changed[:3])})" if changed else ""
    raise LossContractError(
        f"got a loss that depends on weights which the module had before: forward keeps what it has computed{where}; "
        "expected one of the present weights alone; compute it anew where self.training is False, or leave these "
        "weights at w* by SGLDConfig(parameters=[...])"
    )
