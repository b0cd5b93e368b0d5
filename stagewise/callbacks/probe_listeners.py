"""Listeners to the probes of a run while it goes on."""

from collections.abc import Callable

import xarray as xr

from stagewise.callbacks.faults import LISTENER, Faults

Listener = Callable[[int, xr.Dataset | None], None]
"""Called with a probe's training step and its data set, None where all chains failed; it must not change either."""


class ProbeListeners:
    """Functions that are called after each probe, in the order in which they came."""

    def __init__(self) -> None:
        """Start without any."""
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Call it from the next probe on; one that is there already is called once."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Stop calling the listener."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def tell(self, step: int, result: xr.Dataset | None, faults: Faults) -> None:
        """Tell all of a probe.

        Args:
            step: of the probe.
            result: its data set; None where it failed.
            faults: takes in what one of them raises.
        """
        for listener in tuple(self._listeners):
            with faults.contained(LISTENER, step):
                listener(step, result)
