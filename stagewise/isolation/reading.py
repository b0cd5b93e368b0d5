"""Reading of a data set that puts back its random generators and counters."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stagewise.isolation.guard import global_random_restored
from stagewise.isolation.snapshot import Snapshot


@contextmanager
def unmoved(*sources: Any) -> Iterator[None]:
    """Lets the body read samples, and puts back what reading advances.

    Put back are random generators (``torch.Generator``, ``random.Random``, numpy's) and attributes of the data sets, of
    the transforms and samplers inside them and of short containers, and the global random states. Tensors, arrays and
    containers of more than a thousand entries are data: they are passed over.

    Args:
        sources: data sets, collate functions; None is passed over.

    Warns:
        UserWarning: reading advanced something that cannot be put back, such as an iterator; the message names it.
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
                        f"stagewise: reading samples of {type(source).__name__} for the probes changed its "
                        f"{lost[0].name!r}, which {lost[0].change} and cannot be put back, so that training sees other "
                        "samples than without probes; give InfluenceCallback(observed=..., sampling=...) fixed batches",
                        stacklevel=3,
                    )
