import logging

import pytest
import torch
from torch.func import grad, vmap

from stagewise.sampling.engines.tracing import trace


def operations(graph):
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def test_traced_function_gives_the_same_numbers_on_other_numbers():
    def function(w, x):
        return vmap(grad(lambda one: ((x @ one.view(3, 2)) ** 2).sum(1).mean()))(w)

    graph = trace(function, [torch.randn(5, 6), torch.randn(4, 3)])
    w, x = torch.randn(5, 6), torch.randn(4, 3)
    torch.testing.assert_close(graph(w, x), function(w, x))


def test_constants_idle_views_and_cancelling_transposes_are_removed():
    def function(x):
        weight = torch.ones_like(x).mean() * 2
        idle = x.view(3, 4).expand(3, 4).transpose(0, 1).transpose(1, 0) ** 1.0
        return idle * weight

    graph = trace(function, [torch.randn(3, 4)])
    assert operations(graph) == ["aten.mul.Tensor"]
    x = torch.randn(3, 4)
    torch.testing.assert_close(graph(x), 2 * x)


def test_views_that_change_something_stay():
    graph = trace(lambda x: x.transpose(0, 1).transpose(0, 2).reshape(-1).expand(2, -1) ** 2.0, [torch.randn(2, 1, 3)])
    x = torch.randn(2, 1, 3)
    torch.testing.assert_close(graph(x), x.transpose(0, 1).transpose(0, 2).reshape(-1).expand(2, -1) ** 2)


def test_graph_that_writes_in_place_repeats_its_results():
    def function(x):
        total = torch.zeros(3)
        total += x
        total.view(3).mul_(2)
        return total

    graph = trace(function, [torch.randn(3)])
    for _ in range(2):
        torch.testing.assert_close(graph(torch.ones(3)), torch.full((3,), 2.0))


def test_control_flow_on_values_is_not_traced():
    with pytest.raises(RuntimeError, match="data-dependent"):
        trace(lambda x: x * 2 if x.sum() > 0 else x, [torch.randn(3)])


@pytest.mark.parametrize(
    ("shape", "axis", "turned"),
    [
        ((6, 3), -1, True),
        ((6, 3), 1, True),
        ((6, 3), 0, False),
        ((2, 6, 15), 2, True),
        ((6, 16), 1, False),
        ((3,), 0, False),
    ],
)
def test_log_softmax_over_few_classes_uses_another_axis_with_the_same_values(shape, axis, turned):
    def function(x):
        return torch.func.grad(lambda at: (at.log_softmax(axis) * torch.arange(at.numel()).view(at.shape)).sum())(x)

    graph = trace(function, [torch.randn(shape, dtype=torch.float64)])
    axes = {node.args[i] % len(shape) for node in graph.graph.nodes for i in (1, 2) if softmax_axis(node) == i}
    assert axes == {len(shape) - 2 if turned else axis % len(shape)}
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(graph(x), function(x))
    # By hand: of sum_k c_k log p_k it is c - p sum_k c_k.
    c = torch.arange(x.numel(), dtype=x.dtype).view(shape)
    torch.testing.assert_close(graph(x), c - x.softmax(axis) * c.sum(axis, keepdim=True))


def softmax_axis(node):
    """Which argument of a log softmax is its axis."""
    return {"aten._log_softmax.default": 1, "aten._log_softmax_backward_data.default": 2}.get(str(node.target))


def test_tracing_failures_are_raised_but_not_logged(caplog):
    """E.g. for a mixture of experts; torch logs such failures as errors, with a traceback."""
    name = "torch._subclasses.fake_tensor"
    with pytest.raises(RuntimeError, match="dimensions of tensors must match"):
        trace(lambda x: torch.cat([x, x[None, None]]), [torch.randn(4, 3)])
    assert not [record for record in caplog.records if record.name == name]
    logging.getLogger(name).error("heard again")
    assert [record.message for record in caplog.records if record.name == name] == ["heard again"]
