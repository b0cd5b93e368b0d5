"""Reading of a data set without advancing its random generators and counters."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stagewise.isolation.guard import global_random_restored
from stagewise.isolation.snapshot import Snapshot


@contextmanager
def unmoved(*sources: Any) -> Iterator[None]:
    """Context in which samples may be read; restores afterwards all state that reading advances.

    This state is the global random states, and random generators (``torch.Generator``, ``random.Random``, numpy's) and
    attributes of the data sets, of transforms and samplers inside them, and of short containers. Tensors, arrays and
    containers of more than a thousand entries are data and ignored.

    Args:
        sources: data sets and collate functions; None is ignored.

    Warns:
        UserWarning: reading advanced something that cannot be restored, such as an iterator; the message names it.
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
