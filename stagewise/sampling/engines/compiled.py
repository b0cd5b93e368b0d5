"""Compiled engine: one chain at a time, in graphs compiled by ``torch.compile``, for long runs."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import grad

from stagewise.batches import Batch, has_columns, num_samples, take, tensors
from stagewise.errors import InputError, LossContractError, first_line
from stagewise.isolation import restored
from stagewise.losses.contract import Losses
from stagewise.sampling.dense_embeddings import DenseEmbeddings
from stagewise.sampling.engines.batched import Program, fixed_arguments
from stagewise.sampling.engines.sequential import SequentialEngine
from stagewise.sampling.engines.tracing import trace
from stagewise.sampling.selection import moved_entries
from stagewise.sampling.weights import FlatWeights

BACKEND: str | Callable[..., Callable] = "inductor"
"""Argument ``backend`` of ``torch.compile``."""


@contextmanager
def _uncompiled(module: nn.Module) -> Iterator[None]:
    """Context in which compiled parts of a module run uncompiled, since compiled code cannot be traced."""
    own = []
    for part in module.modules():
        # `torch.compile(part)` wraps the module in another; `part.compile()` sets an attribute.
        names = {"forward": getattr(part, "_orig_mod", None), "_compiled_call_impl": None}
        for name, plain in names.items():
            compiled = vars(part).get(name)
            if compiled is not None and (name != "forward" or plain is not None):
                own.append((part, name, compiled))
                vars(part)[name] = plain
    try:
        yield
    finally:
        for part, name, compiled in own:
            vars(part)[name] = compiled


class CompiledProgram(Program):
    """Gradient and losses of one chain, each a compiled function of weights, other tensors of the module, and data.

    The compiler sees only the traced operations, never the module's code. Its caches and limits for that code, needed
    by modules compiled for training, are untouched, and nothing is recompiled while shapes stay the same.
    """

    def _function(self, module: nn.Module, batch: Batch, *, gradient: bool, shared: bool) -> Callable[..., Tensor]:
        """Returns ``f(weights [weight], *others, *data)`` for one chain."""
        one_chain = self._one_chain(module, batch, gradient=gradient)
        num_fixed = len(fixed_arguments(module, moved_entries(module, self._selection)))
        found = grad(one_chain) if gradient else one_chain

        def function(weights: Tensor, *arguments: Tensor) -> Tensor:
            return found(weights, list(arguments[:num_fixed]), list(arguments[num_fixed:]))

        return function

    def _made(
        self, module: nn.Module, function: Callable[..., Tensor], arguments: list[Tensor]
    ) -> Callable[..., Tensor]:
        """Returns the compiled function, after a first call that compiles it."""
        try:
            with restored(module), _uncompiled(module), DenseEmbeddings():
                graph = trace(function, arguments)
            compiled: Callable[..., Tensor] = torch.compile(graph, backend=BACKEND, fullgraph=True, dynamic=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings of the compiler about the machine
                compiled(*arguments)
        except (InputError, LossContractError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # anything that cannot be traced or compiled
            inner = getattr(error, "inner_exception", error)  # raised within the compiler
            raise InputError(
                f"got engine=compiled, which cannot run this module ({first_line(inner, typed=True)}); expected a loss "
                "that can be traced, and a compiler on this machine (a C++ compiler for the CPU); set engine to "
                "sequential"
            ) from error
        return compiled


class CompiledEngine(SequentialEngine):
    """Runs one chain at a time. See :class:`~stagewise.sampling.engines.engine.Engine`.

    The steps of a chain and the records of its draws are compiled. Rare passes, and a smaller last chunk of the
    observed set, run as in the sequential engine.
    """

    def __init__(
        self,
        program: CompiledProgram,
        module: nn.Module,
        weights: FlatWeights,
        evaluate_batch: Callable[[Batch], Losses],
        sampling: Batch,
        observed: Sequence[Batch],
    ) -> None:
        """Sets up at the anchor.

        Args:
            program: shared by the probes of a run.
            module: in eval mode, holding the leaves of ``weights``.
            weights: of the chain.
            evaluate_batch: returns the losses of a batch at the module's present weights.
            sampling: the sampling set.
            observed: the observed set, in chunks.

        Raises:
            InputError: a batch with per-sample entries that are not tensors, which graphs do not support.
        """
        if any(has_columns(batch) for batch in (sampling, *observed)):
            raise InputError("got a batch with lists or arrays beside its tensors; expected only tensors")
        super().__init__(weights, evaluate_batch, sampling, observed)
        self._program = program
        self._module = module
        self._rest = fixed_arguments(module, weights.entries)
        self._chunk_size = num_samples(observed[0])
        self._gradients: dict[int | None, Callable[..., Tensor]] = {}
        self._records: Callable[..., Tensor] | None = None

    def gradient(self, rows: Tensor | None) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        batch = self._sampling if rows is None else take(self._sampling, rows[0])
        size = None if rows is None else rows.shape[1]
        if size not in self._gradients:
            self._gradients[size] = self._graph(batch, gradient=True)
        with torch.no_grad():
            return self._gradients[size](self.state[0], *self._rest, *tensors(batch)).unsqueeze(0)

    @torch.no_grad()
    def losses(self) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        if self._records is None:
            self._records = self._graph(self._observed[0], gradient=False)
        parts = [
            self._records(self.state[0], *self._rest, *tensors(chunk))
            if num_samples(chunk) == self._chunk_size
            else self._evaluate(chunk).values
            for chunk in self._observed
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0)

    def _graph(self, batch: Batch, *, gradient: bool) -> Callable[..., Tensor]:
        with torch.no_grad():
            return self._program.graph(self._module, self.state[0], self._rest, batch, gradient=gradient, shared=True)
