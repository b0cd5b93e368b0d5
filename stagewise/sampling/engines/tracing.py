"""Tracing of a function of tensors into a graph of operations, without redundant ones.

A traced graph runs without autograd, modules or checks; only the dispatch of each operation costs time. The backward
passes of ``torch.func`` leave many views that change nothing and chains of operations that compute constants.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

_aten = torch.ops.aten

_SHORT_AXIS = 16
"""Number of classes. Over a shorter last axis torch's CPU kernels for log softmax take up to ten times as long as over
an earlier axis, where they are vectorized over samples."""

_VIEWS = {_aten.view.default, _aten._unsafe_view.default, _aten.expand.default, _aten.alias.default}
_TRANSPOSE, _POW = _aten.transpose.int, _aten.pow.Tensor_Scalar
_OF_SHAPE_ONLY = {_aten.ones_like.default, _aten.zeros_like.default, _aten.full_like.default}
_LARGEST_CONSTANT = 2**20
"""Size in numbers. Larger constants are computed each time instead of being kept."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences torch's log message about functions that cannot be traced, which repeats the raised error."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")

    def silent(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)


def trace(function: Callable[..., Tensor], arguments: list[Tensor]) -> GraphModule:
    """Traces ``function`` on tensors of these shapes; returns a graph of the same arguments.

    Raises:
        RuntimeError: control flow depends on values, or the function uses tensors that are not arguments.
    """
    # Fake tensors are faster to trace, and refuse tensors that are not arguments instead of making them constants.
    with _quiet():
        graph = make_fx(function, decomposition_table=_DECOMPOSITIONS, tracing_mode="fake")(*arguments)
    if not any(_mutates(node) for node in graph.graph.nodes):
        _fold_constants(graph)
        _drop_idle(graph)
        _copy_kept(graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return graph


def _is_short(like: Tensor, axis: int) -> bool:
    last = axis in (-1, like.dim() - 1)
    return last and like.dim() > 1 and like.shape[-1] < _SHORT_AXIS and like.device.type == "cpu"


def _log_softmax(x: Tensor, axis: int, half_to_float: bool) -> Tensor:
    if not _is_short(x, axis):
        return NotImplemented
    return _aten._log_softmax.default(x.mT.contiguous(), x.dim() - 2, half_to_float).mT


def _log_softmax_backward(gradient: Tensor, output: Tensor, axis: int, dtype: torch.dtype) -> Tensor:
    if not _is_short(output, axis):
        return NotImplemented
    turned = gradient.mT.contiguous(), output.mT.contiguous()
    return _aten._log_softmax_backward_data.default(*turned, output.dim() - 2, dtype).mT


_DECOMPOSITIONS: dict[Any, Callable[..., Tensor]] = {
    _aten._log_softmax.default: _log_softmax,
    _aten._log_softmax_backward_data.default: _log_softmax_backward,
}


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _value(node: object) -> Tensor | None:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value if isinstance(value, Tensor) else None


def _fold_constants(graph: GraphModule) -> None:
    """Replaces operations that do not depend on the arguments by their results."""
    known: dict[Node, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            known[node] = getattr(graph, str(node.target))
        if node.op != "call_function" or node.target is torch.ops.aten.sym_size.int:
            continue
        inputs = node.all_input_nodes
        if node.target in _OF_SHAPE_ONLY and (like := _value(inputs[0])) is not None:
            real = torch.empty(like.shape, dtype=like.dtype, device=like.device)
            known[node] = node.target(real, *node.args[1:], **node.kwargs)
        elif all(source in known for source in inputs):
            args = map_arg(node.args, known.__getitem__)
            known[node] = node.target(*args, **map_arg(node.kwargs, known.__getitem__))
    for index, (node, value) in enumerate(known.items()):
        needed = any(user not in known for user in node.users)
        if node.op == "get_attr" or not needed or not isinstance(value, Tensor) or value.numel() > _LARGEST_CONSTANT:
            continue
        name = f"_constant_{index}"
        graph.register_buffer(name, value.clone(memory_format=torch.contiguous_format), persistent=False)
        with graph.graph.inserting_before(node):
            constant = graph.graph.get_attr(name)
        constant.meta = node.meta
        node.replace_all_uses_with(constant)


def _copy_kept(graph: GraphModule) -> None:
    """Copies an output that is a constant of the graph or an argument, since the caller may write to it."""
    output = graph.graph.output_node()
    answer = output.args[0]
    if isinstance(answer, Node) and answer.op in ("get_attr", "placeholder"):
        with graph.graph.inserting_before(output):
            copy = graph.graph.call_function(_aten.clone.default, (answer,))
        copy.meta = dict(answer.meta)
        output.replace_input_with(answer, copy)


def _drop_idle(graph: GraphModule) -> None:
    """Bypasses views to the same shape, pairs of transposes that cancel, and first powers."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not node.args:
            continue
        source = node.args[0]
        before, after = _value(source), _value(node)
        if before is None or after is None:
            continue
        same_shape = before.shape == after.shape and before.dtype == after.dtype
        if same_shape and (node.target in _VIEWS or (node.target is _POW and node.args[1] == 1)):
            node.replace_all_uses_with(source)
        elif node.target is source.target is _TRANSPOSE and _axes(node) == _axes(source):
            node.replace_all_uses_with(source.args[0])


def _axes(transpose: Node) -> set[int]:
    num_axes = transpose.meta["val"].dim()
    return {int(axis) % num_axes for axis in transpose.args[1:]}  # type: ignore[arg-type]
