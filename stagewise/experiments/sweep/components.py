"""Which weights the chains of a cell move.

A sweep has one cell for each checkpoint and component. There is one component so far, ``all``, whose chains move what
``sgld.parameters`` says. A further one needs a name that :func:`check_component` knows and chains of its own in
:func:`chains_of`; cells, stores and tables are keyed by (step, component) already.
"""

from stagewise.errors import InputError
from stagewise.sampling.config import SGLDConfig

ALL = "all"
"""The component whose chains move all weights that ``sgld.parameters`` names."""


def check_component(component: str) -> None:
    """Refuse a name that stands for no component.

    Raises:
        InputError: with the names that there are.
    """
    if component != ALL:
        raise InputError(f"got component {component!r}; expected one of ['{ALL}']; correct the name")


def chains_of(component: str, sgld: SGLDConfig) -> SGLDConfig:
    """The sampler of a component.

    Args:
        component: its name.
        sgld: the sampler of the sweep.

    Raises:
        InputError: no such component.
    """
    check_component(component)
    return sgld
