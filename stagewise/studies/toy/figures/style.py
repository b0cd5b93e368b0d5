"""What the figures of the toy share: colours of methods, the axis of its probes, its transitions."""

from typing import Any

from matplotlib.axes import Axes

from stagewise.reporting.style import NORMAL, step_axis
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.stages import CHAINS
from stagewise.studies.toy.validation import SeedResult

CLOSED_FORM, GRADIENT_DOT = "closed form", "minus gradient dot product"
METHOD_LOOKS: dict[str, dict[str, Any]] = {
    CHAINS: {"color": "#000000", "linewidth": 1.8},
    "local Gaussian": {"color": "#E69F00", "linewidth": 1.6, "linestyle": (0, (5, 1.5))},
    "horizon": {"color": "#CC3D8F", "linewidth": 1.4},
    "unrolled": {"color": "#0072B2", "linewidth": 1.4},
    "full leave-one-out": {"color": "#8C6D31", "linewidth": 1.4},
    CLOSED_FORM: {"color": "#56B4E9", "linewidth": 1.4, "linestyle": (0, (4, 2))},
    GRADIENT_DOT: {"color": "#7A7A7A", "linewidth": 1.6, "linestyle": (0, (1, 1.2))},
}
TRUE_TRANSITION: dict[str, Any] = {"color": "#555555", "linewidth": 0.8, "linestyle": (0, (2, 2)), "zorder": 0.5}


def method_name(method: str, config: ToyConfig) -> str:
    """A method of :data:`~stagewise.studies.toy.stages.METHODS` in words; its horizon in steps."""
    return f"drop for {config.retraining.horizon:,} steps" if method == "horizon" else method


def probed_axis(axes: Axes, config: ToyConfig, *, words: bool = True) -> None:
    """The step axis from the first probe to the end of training."""
    step_axis(axes, config.probed_steps[0], config.network.num_steps)
    if words:
        axes.set_xlabel("training step", fontsize=NORMAL)


def mark_transitions(axes: Axes, result: SeedResult) -> None:
    """Thin vertical lines where the loss of each group of equal modes falls fastest; the first has a label."""
    for number, step in enumerate(result.exact.attrs["transitions"]):
        axes.axvline(step, label="true transition" if number == 0 else None, **TRUE_TRANSITION)
