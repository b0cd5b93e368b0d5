"""Looking at a module without a trace: other weights in its place, and everything as it was afterwards."""

from stagewise.isolation.look import untouched
from stagewise.isolation.reading import unmoved
from stagewise.isolation.snapshot import restored
from stagewise.isolation.swap import with_weights

__all__ = ["restored", "unmoved", "untouched", "with_weights"]
