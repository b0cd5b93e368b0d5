"""What the figures share: colours, sizes, axes of training steps, and the line between helpful and harmful."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from stagewise.experiments.toy.config import ToyConfig
from stagewise.experiments.toy.stages import CHAINS
from stagewise.experiments.toy.validation import SeedResult

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
SMALL, NORMAL, LARGE = 8.5, 9.5, 11.0
"""Font sizes, points."""


def method_name(method: str, config: ToyConfig) -> str:
    """A method of :data:`~stagewise.experiments.toy.stages.METHODS` in words; its horizon in steps."""
    return f"drop for {config.retraining.horizon:,} steps" if method == "horizon" else method


def new_figure(width: float, height: float, title: str) -> Figure:
    """A figure that places its panels itself.

    Args:
        width: inches.
        height: inches.
        title: what is shown, over all panels.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=LARGE)
    return figure


def label(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Set the words of a panel, in sizes that can be read."""
    axes.set_title(title, fontsize=NORMAL)
    axes.set_xlabel(x, fontsize=NORMAL)
    axes.set_ylabel(y, fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set_fontsize(SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def round_steps(first: float, last: float) -> list[int]:
    """Ticks of a logarithmic axis: 1, 2 and 5 times powers of ten, and more where fewer than three of them fit."""
    powers = range(int(np.log10(last)) + 1)
    found: list[int] = []
    for digits in ((10, 20, 50), (10, 15, 20, 30, 40, 50, 70), range(10, 100)):
        steps = sorted({digit * 10**power // 10 for power in powers for digit in digits} - {0})
        found = [step for step in steps if first <= step <= last]
        if len(found) >= 3:
            break
    return found or [round(first), round(last)]


def step_axis(axes: Axes, first: float, last: float, *, vertical: bool = False) -> None:
    """Make an axis one of training steps on a log scale, with ticks such as 500 and 1,000."""
    axis = axes.yaxis if vertical else axes.xaxis
    if vertical:
        axes.set_yscale("log")
        axes.set_ylim(first, last)
    else:
        axes.set_xscale("log")
        axes.set_xlim(first, last)
    axis.set_major_locator(FixedLocator(round_steps(first, last)))
    axis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axis.set_minor_locator(NullLocator())


def probed_axis(axes: Axes, config: ToyConfig, *, words: bool = True) -> None:
    """The step axis from the first probe to the end of training."""
    step_axis(axes, config.probed_steps[0], config.network.num_steps)
    if words:
        axes.set_xlabel("training step", fontsize=NORMAL)


def mark_transitions(axes: Axes, result: SeedResult) -> None:
    """Thin vertical lines where the loss of each group of equal modes falls fastest; the first has a label."""
    for number, step in enumerate(result.exact.attrs["transitions"]):
        axes.axvline(step, label="true transition" if number == 0 else None, **TRUE_TRANSITION)


def mark_sides(axes: Axes) -> None:
    """The zero line; words on either side of it, and a light shade where influence is helpful."""
    low, high = axes.get_ylim()
    low, high = min(low, -0.02 * abs(high)), max(high, 0.02 * abs(low))
    axes.axhspan(low, 0, color="#EAF3EA", zorder=0, linewidth=0)
    axes.axhline(0, color="#333333", linewidth=0.8, zorder=1)
    axes.set_ylim(low, high)
    for place, edge, words in ((0.98, "top", "harmful"), (0.03, "bottom", "helpful")):
        axes.text(
            0.008,
            place,
            words,
            transform=axes.transAxes,
            va=edge,
            fontsize=SMALL,
            color="#666666",
            style="italic",
            bbox={"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 1},
        )


def shades(count: int) -> list[Any]:
    """So many colours from dark to light."""
    return [colormaps["viridis"](place) for place in np.linspace(0, 0.86, count)]
