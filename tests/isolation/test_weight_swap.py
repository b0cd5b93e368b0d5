"""Other weights are seen wherever the module holds a parameter, and the identical objects are back afterwards."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

from stagewise.errors import InputError
from stagewise.isolation import untouched, with_weights

Pair = namedtuple("Pair", "left right")


class Named(nn.Module):
    """What a build function makes of an empty module, and a forward pass over it."""

    def __init__(self, build, forward):
        super().__init__()
        build(self)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def two_names(m):
    m.a = m.b = nn.Linear(3, 3)


def head_of_a_chain(m):
    m.net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    m.head = m.net[2]


def repeated_entry(m):
    block = nn.Linear(3, 3)
    m.layers = nn.ModuleList([block, nn.Linear(3, 3), block])


def tied(m):
    m.a, m.b = nn.Linear(3, 3), nn.Linear(3, 3)
    m.b.weight = m.a.weight


def one_module_two_names(m):
    m.weight = nn.Parameter(torch.randn(3, 3))
    m.same = m.weight


def plain_containers(m):
    m.a = nn.Linear(3, 3)
    m.kept = {"list": [m.a.weight], "tuple": (m.a.bias, 1), "pair": Pair(m.a.weight, None), "deep": [((m.a.bias,),)]}
    object.__setattr__(m, "alias", m.a.weight)
    vars(m)["direct"] = m.a.weight
    m.space = SimpleNamespace(weight=m.a.weight)
    m.chosen = {m.a.weight}


def of_containers(m, x):
    (weight,) = m.chosen
    out = x @ m.kept["list"][0] + m.kept["tuple"][0] + x @ m.kept["pair"].left + m.kept["deep"][0][0][0]
    return out + x @ vars(m)["direct"] + x @ m.alias + x @ m.space.weight + x @ weight


def parameter_containers(m):
    one = nn.Parameter(torch.randn(3, 3))
    m.list = nn.ParameterList([one, nn.Parameter(torch.randn(3, 3)), one])
    m.dict = nn.ParameterDict({"a": one, "b": nn.Parameter(torch.randn(3, 3))})


class Symmetric(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * (x + x.mT)


def shared_parametrization(m):
    m.a, m.b, shared = nn.Linear(3, 3), nn.Linear(3, 3), Symmetric()
    parametrize.register_parametrization(m.a, "weight", shared)
    parametrize.register_parametrization(m.b, "weight", shared)


def norms(m):
    m.a = parametrizations.spectral_norm(nn.Linear(3, 3))
    m.b = parametrizations.weight_norm(nn.Linear(3, 3))


def old_norms(m):
    m.a, m.b = spectral_norm(nn.Linear(3, 3)), weight_norm(nn.Linear(3, 3))


def recurrent(m):
    m.a = nn.LSTM(3, 3, batch_first=True)
    m.again = m.a


def hidden_in_a_closure(m):
    m.a = nn.Linear(3, 3)
    weight = m.a.weight
    m.a.register_forward_hook(lambda _, inputs, output: output + inputs[0] @ weight)


def hidden_module(m):
    m.a = nn.Linear(3, 3)
    m.unregistered = [nn.Linear(3, 3, bias=False)]
    m.unregistered[0].weight = m.a.weight


PATTERNS = {
    "module under two names": (two_names, lambda m, x: m.b(m.a(x))),
    "head of a chain": (head_of_a_chain, lambda m, x: m.head(m.net(x))),
    "repeated entry": (repeated_entry, lambda m, x: m.layers[2](m.layers[1](m.layers[0](x)))),
    "tied": (tied, lambda m, x: m.b(m.a(x))),
    "parameter under two names": (one_module_two_names, lambda m, x: x @ m.weight @ m.same),
    "plain containers": (plain_containers, of_containers),
    "parameter containers": (
        parameter_containers,
        lambda m, x: x @ m.list[0] @ m.list[1] @ m.list[2] @ m.dict["a"] @ m.dict["b"],
    ),
    "shared parametrization": (shared_parametrization, lambda m, x: m.b(m.a(x))),
    "norms": (norms, lambda m, x: m.b(m.a(x))),
    "old norms": (old_norms, lambda m, x: m.b(m.a(x))),
    "recurrent": (recurrent, lambda m, x: m.again(m.a(x[:, None])[0])[0][:, 0]),
    "closure": (hidden_in_a_closure, lambda m, x: m.a(x)),
    "hidden module": (hidden_module, lambda m, x: m.unregistered[0](m.a(x))),
}


def identities(value, seen=None):
    """Every object that is reached by plain means, in order, by identity: written apart from the package's own walk."""
    seen = set() if seen is None else seen
    if isinstance(value, int | float | str | bool | type(None)) or id(value) in seen:
        return [id(value)]
    seen.add(id(value))
    found = [id(value)]
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    elif isinstance(value, nn.Module | SimpleNamespace):
        parts = [*vars(value).keys(), *vars(value).values()]
    elif callable(value) and getattr(value, "__closure__", None):
        parts = [cell.cell_contents for cell in value.__closure__]
    else:
        parts = []
    for part in parts:
        found += identities(part, seen)
    return found


@pytest.fixture(params=PATTERNS)
def pattern(request):
    torch.manual_seed(3)
    build, forward = PATTERNS[request.param]
    return Named(build, forward).eval(), Named(build, forward).eval()


def weights_of(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def test_outputs_and_gradients_are_those_of_a_module_that_owns_the_weights(pattern):
    module, other = pattern
    x = torch.randn(4, 3)
    # Buffers of spectral norms are no weights.
    other.load_state_dict(
        {**other.state_dict(), **{k: v for k, v in module.state_dict().items() if "_u" in k or "_v" in k}}, strict=False
    )
    other.load_state_dict({**module.state_dict(), **weights_of(other)}, strict=False)
    loss = other(x).square().sum()
    expected = dict(
        zip(dict(other.named_parameters()), torch.autograd.grad(loss, list(other.parameters())), strict=True)
    )
    leaves = {name: value.requires_grad_() for name, value in weights_of(other).items()}
    with untouched(module):
        found = with_weights(module, leaves, lambda: module(x).square().sum())
        slopes = torch.autograd.grad(found, list(leaves.values()))
    assert torch.equal(found, loss)
    for slope, want in zip(slopes, expected.values(), strict=True):
        torch.testing.assert_close(slope, want, rtol=0, atol=0)


@pytest.mark.parametrize("fails", [False, True])
def test_identical_objects_are_back_in_their_places_and_order(pattern, fails):
    module, other = pattern
    x = torch.randn(4, 3)
    module(x)
    before, values = identities(module), {name: value.clone() for name, value in module.state_dict().items()}

    def body():
        module(x)
        if fails:
            raise KeyboardInterrupt

    for _ in range(2):
        try:
            with untouched(module):
                with_weights(module, weights_of(other), body)
        except KeyboardInterrupt:
            assert fails
        assert identities(module) == before
        assert all(isinstance(weight, nn.Parameter) for weight in module.parameters())
    assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())


def test_also_without_a_look_around_it(pattern):
    module, other = pattern
    before = [id(parameter) for child in module.modules() for parameter in child._parameters.values()]
    keys = [list(child._parameters) for child in module.modules()]
    with_weights(module, weights_of(other), lambda: module(torch.randn(4, 3)))
    assert [id(parameter) for child in module.modules() for parameter in child._parameters.values()] == before
    assert [list(child._parameters) for child in module.modules()] == keys
    if hasattr(module, "a") and isinstance(module.a, nn.LSTM):
        assert all(a is b for a, b in zip(module.a._flat_weights, module.a.parameters(), strict=True))


def test_under_vmap_and_grad(pattern):
    module, other = pattern
    if any(isinstance(item, nn.LSTM) for item in module.modules()):
        pytest.skip("torch has no batching rule for recurrent kernels")
    x = torch.randn(4, 3)
    own, others = weights_of(module), weights_of(other)
    before = identities(module)

    def loss(weights):
        return with_weights(module, weights, lambda: module(x).square().sum())

    with untouched(module):
        together = vmap(grad(loss))({name: torch.stack([own[name], others[name]]) for name in own})
        for row, weights in enumerate((own, others)):
            leaves = {name: value.requires_grad_() for name, value in weights.items()}
            slopes = torch.autograd.grad(loss(leaves), list(leaves.values()))
            for name, slope in zip(leaves, slopes, strict=True):
                torch.testing.assert_close(together[name][row], slope)
    assert identities(module) == before


def test_training_goes_on_with_the_parameters_that_the_optimizer_has():
    module = Named(*PATTERNS["module under two names"])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with_weights(module, weights_of(module), lambda: module(torch.ones(1, 3)))
    before = module.a.weight.clone()
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(module.b.weight, before)


def test_body_may_register_what_it_likes():
    module = nn.Linear(2, 1)

    def body():
        module.register_buffer("late", torch.ones(1))
        module.register_parameter("more", nn.Parameter(torch.ones(1)))
        del module.bias

    own = module.weight, module.bias
    with_weights(module, weights_of(module), body)
    assert list(module._parameters) == ["weight", "bias", "more"]
    assert (module.weight, module.bias) == own
    assert torch.equal(module.late, torch.ones(1))


def test_cached_parametrizations_are_set_aside():
    module = parametrizations.weight_norm(nn.Linear(2, 2))
    zeros = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
    with parametrize.cached():
        own = module.weight
        seen = with_weights(
            module, {**zeros, "parametrizations.weight.original1": torch.ones(2, 2)}, lambda: module.weight
        )
        assert not torch.equal(seen, own)
        assert module.weight is own


def test_unknown_name_is_refused():
    with pytest.raises(InputError, match=r"'bais', which the module does not have"):
        with_weights(nn.Linear(1, 1), {"bais": torch.zeros(1)}, lambda: None)


def test_weight_of_a_scripted_module_is_refused_and_one_left_alone_is_not():
    module = nn.Sequential(torch.jit.script(nn.Linear(2, 2)), nn.Linear(2, 1))
    with pytest.raises(InputError, match=r"'0.weight' of a scripted module"):
        with_weights(module, weights_of(module), lambda: None)
    zeros = {"1.weight": torch.zeros(1, 2), "1.bias": torch.zeros(1)}
    with untouched(module):
        assert with_weights(module, zeros, lambda: module(torch.ones(1, 2))) == 0


def test_compiled_submodule_keeps_its_parameters():
    module = nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager"), nn.Linear(2, 1))
    x = torch.ones(1, 2)
    before = module(x)
    zeros = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
    with untouched(module):
        assert with_weights(module, zeros, lambda: module(x)) == 0
    assert torch.equal(module(x), before)
    assert all(isinstance(weight, nn.Parameter) for weight in module.parameters())
