"""Batched engine: all chains of a probe at once, for models whose steps are bound by dispatch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from stagewise.batches import Batch, has_columns, num_samples, plain_parts, tensors
from stagewise.errors import InputError
from stagewise.isolation import restored, with_weights
from stagewise.losses.contract import Losses, LossFn, evaluate
from stagewise.sampling.dense_embeddings import DenseEmbeddings
from stagewise.sampling.engines.tracing import trace
from stagewise.sampling.selection import Entries, Selection, moved_entries
from stagewise.sampling.weights import FlatWeights
from stagewise.structure import each_tensor


def _rebuilt(batch: Batch, values: Sequence[Tensor]) -> Batch:
    """Returns a batch of the same structure with the tensors ``values``."""
    following = iter(values)
    return each_tensor(batch, lambda _: next(following))


class Program:
    """Gradient and losses of all chains as two graphs of tensor operations, traced once and used at every probe.

    Everything that changes over a run is an argument of the graphs: chains, other parameters, buffers, data. Any other
    state of the module is a constant in them; the caller compares the losses at w* with the module's own.
    """

    def __init__(
        self,
        loss_fn: LossFn,
        selection: Selection,
        forward_context: Callable[[], AbstractContextManager],
        *,
        traced: bool = True,
    ) -> None:
        """Stores the inputs; traces nothing yet.

        Args:
            loss_fn: per-sample loss.
            selection: weights that the chains move, as patterns or masks.
            forward_context: entered around each forward pass (autocast).
            traced: record the tensor operations once and replay them; False calls the module each time.
        """
        self._loss_fn = loss_fn
        self._selection = selection
        self._forward_context = forward_context
        self._traced = traced
        self._graphs: dict[Any, Callable[..., Tensor]] = {}

    def _one_chain(
        self, module: nn.Module, batch: Batch, *, gradient: bool
    ) -> Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]:
        """Returns ``f(weights [weight], fixed arguments, tensors of a batch)``: the mean loss, or the losses."""
        moving = moved_entries(module, self._selection)
        others = list(_others(module, moving))

        def one_chain(weights: Tensor, rest: Sequence[Tensor], data: Sequence[Tensor]) -> Tensor:
            held = dict(zip(others, rest[: len(others)], strict=True))
            indices = iter(rest[len(others) :])
            for moved, part in zip(moving, weights.split([moved.size for moved in moving]), strict=True):
                entries = part.to(moved.dtype)
                if moved.index is not None:
                    # The index is an argument: tracing refuses tensors that are not.
                    entries = held[moved.name].reshape(-1).scatter(0, next(indices), entries)
                held[moved.name] = entries.view(moved.shape)

            def body() -> Tensor:
                with self._forward_context():
                    losses = evaluate(self._loss_fn, module, _rebuilt(batch, data))
                return losses.mean() if gradient else losses.values

            return with_weights(module, held, body)

        return one_chain

    def _function(self, module: nn.Module, batch: Batch, *, gradient: bool, shared: bool) -> Callable[..., Tensor]:
        """Returns ``f(state [chain, weight], *others, *data)``, with one batch for all chains or one for each."""
        one_chain = self._one_chain(module, batch, gradient=gradient)
        num_fixed = len(fixed_arguments(module, moved_entries(module, self._selection)))
        own = [None if shared or not tensor.dim() else 0 for tensor in tensors(batch)]
        every_chain = vmap(grad(one_chain) if gradient else one_chain, in_dims=(0, None, own))

        def function(state: Tensor, *arguments: Tensor) -> Tensor:
            return every_chain(state, list(arguments[:num_fixed]), list(arguments[num_fixed:]))

        def guarded(state: Tensor, *arguments: Tensor) -> Tensor:
            # Attributes that forward sets belong to a transformation that ends here.
            with restored(module):
                return function(state, *arguments)

        return function if self._traced else guarded

    def graph(
        self, module: nn.Module, state: Tensor, rest: Sequence[Tensor], batch: Batch, *, gradient: bool, shared: bool
    ) -> Callable[..., Tensor]:
        """Returns the function of ``(state, *rest, *tensors(batch))``, traced if these shapes are new.

        Args:
            module: in eval mode.
            state: ``[chain, weight]``.
            rest: from :func:`fixed_arguments`.
            batch: shared by all chains, or with a leading axis of chains.
            gradient: True for the gradient of the mean loss ``[chain, weight]``, False for the losses
                ``[chain, sample(, token)]``.
            shared: True if all chains share the batch.
        """
        arguments = [state, *rest, *tensors(batch)]
        key = (gradient, shared, plain_parts(batch), *((tensor.shape, tensor.dtype) for tensor in arguments))
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._made(module, self._function(module, batch, gradient=gradient, shared=shared), arguments)
            self._graphs[key] = graph
        return graph

    def _made(
        self, module: nn.Module, function: Callable[..., Tensor], arguments: list[Tensor]
    ) -> Callable[..., Tensor]:
        """Returns the function, traced if tracing is on."""
        if not self._traced:
            return function
        # Fused attention has no batching rule and would loop over chains. Attributes that forward sets while traced are
        # tensors without values.
        with sdpa_kernel(SDPBackend.MATH), restored(module), DenseEmbeddings():
            return trace(function, arguments)


def constants(module: nn.Module) -> dict[str, Tensor]:
    """Returns detached parameters and buffers by name: arguments of a traced graph, renewed at each probe."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: value.detach() for name, value in named.items()}


def _others(module: nn.Module, moving: Sequence[Entries]) -> dict[str, Tensor]:
    """Returns the :func:`constants` that do not move, or move only in part."""
    whole = {moved.name for moved in moving if moved.index is None}
    return {name: value for name, value in constants(module).items() if name not in whole}


def fixed_arguments(module: nn.Module, moving: Sequence[Entries]) -> list[Tensor]:
    """Returns graph arguments that are fixed during a probe: values at w*, and indices of moving entries."""
    indices = [moved.index for moved in moving if moved.index is not None]
    return [*_others(module, moving).values(), *indices]


class BatchedEngine:
    """Runs all chains of a probe in one ``vmap``. See :class:`~stagewise.sampling.engines.engine.Engine`."""

    def __init__(
        self,
        program: Program,
        module: nn.Module,
        weights: FlatWeights,
        num_chains: int,
        sampling: Batch,
        observed: Sequence[Batch],
        mask: Tensor,
    ) -> None:
        """Sets up at the anchor.

        Args:
            program: shared by the probes of a run.
            module: in eval mode; its own weights are w*.
            weights: the weights in flat form.
            num_chains: number of chains that run at once.
            sampling: the sampling set.
            observed: the observed set, in chunks.
            mask: True where the observed set has a loss.

        Raises:
            InputError: a batch with per-sample entries that are not tensors, which graphs do not support.
        """
        if any(has_columns(batch) for batch in (sampling, *observed)):
            raise InputError("got a batch with lists or arrays beside its tensors; expected only tensors")
        self._program = program
        self._module = module
        self._rest = fixed_arguments(module, weights.entries)
        self._sampling = sampling
        self._observed = observed
        self._mask = mask
        self.anchor = weights.anchor
        self.state = weights.anchor.repeat(num_chains, 1)
        self._gradients: dict[int | None, Callable[..., Tensor]] = {}
        self._recorded: list[tuple[Callable[..., Tensor], list[Tensor]]] | None = None
        self._anchors = weights.anchor.repeat(num_chains, 1)

    def moved(self) -> None:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""

    def gradient(self, rows: Tensor | None) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        return self._gradient(self.state, rows)

    def anchor_gradient(self, rows: Tensor | None) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        return self._gradient(self._anchors, rows)

    def observed_gradient(self) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        total, start = torch.zeros_like(self.state), 0
        for chunk in self._observed:
            graph = self._graph(chunk, gradient=True, shared=True)
            end = start + num_samples(chunk)
            # The graph returns the gradient of the mean over the chunk.
            share = self._mask[start:end].sum() / self._mask.sum()
            with torch.no_grad():
                total += graph(self.state, *self._rest, *tensors(chunk)) * share.to(total)
            start = end
        return total

    def _gradient(self, state: Tensor, rows: Tensor | None) -> Tensor:
        batch = self._sampling
        if rows is not None:
            rows = rows.to(state.device)
            batch = each_tensor(batch, lambda tensor: tensor[rows] if tensor.dim() else tensor)
        # Minibatches of a partition may be smaller than those on which the engine was tried.
        size = None if rows is None else rows.shape[1]
        if size not in self._gradients:
            self._gradients[size] = self._graph(batch, gradient=True, shared=rows is None)
        with torch.no_grad():
            return self._gradients[size](state, *self._rest, *tensors(batch))

    def losses(self) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        return self._losses(self.state)

    def anchor_losses(self) -> Losses:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        return Losses(self._losses(self._anchors)[0], self._mask)

    @torch.no_grad()
    def _losses(self, state: Tensor) -> Tensor:
        if self._recorded is None:
            self._recorded = [
                (self._graph(chunk, gradient=False, shared=True), tensors(chunk)) for chunk in self._observed
            ]
        parts = [graph(state, *self._rest, *data) for graph, data in self._recorded]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _graph(self, batch: Batch, *, gradient: bool, shared: bool) -> Callable[..., Tensor]:
        with torch.no_grad():
            return self._program.graph(self._module, self.state, self._rest, batch, gradient=gradient, shared=shared)
