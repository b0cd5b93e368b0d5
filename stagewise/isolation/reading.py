"""Read a data set without moving it: random generators and counters of its own are put back."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stagewise.isolation.look import global_random_restored
from stagewise.isolation.snapshot import Snapshot


@contextmanager
def unmoved(*sources: Any) -> Iterator[None]:
    """Let the body read samples, and put back what reading moves.

    Put back are random generators (``torch.Generator``, ``random.Random``, numpy's) and attributes of the data sets, of
    the transforms and samplers inside them and of short containers, and the global random states. Tensors, arrays and
    containers of more than a thousand entries are data: they are passed over.

    Args:
        sources: data sets, collate functions; None is passed over.

    Warns:
        UserWarning: a data set has moved what cannot be put back, such as an iterator; it is named, with what to give.
    """
    snapshots = [(source, Snapshot(source, data=True)) for source in sources if source is not None]
    with global_random_restored():
        try:
            yield
        finally:
            for source, snapshot in snapshots:
                lost = snapshot.restore()
                if lost:
                    warnings.warn(
                        f"stagewise: reading samples of {type(source).__name__} for the probes moved its "
                        f"{lost[0].name!r}, which {lost[0].change} and cannot be put back, so that training sees other "
                        "samples than without probes; give InfluenceCallback(observed=..., sampling=...) fixed batches",
                        stacklevel=3,
                    )
