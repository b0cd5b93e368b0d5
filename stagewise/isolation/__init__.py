"""Evaluation of a module at other weights, without any lasting change to it."""

from stagewise.isolation.guard import untouched
from stagewise.isolation.reading import unmoved
from stagewise.isolation.snapshot import restored
from stagewise.isolation.weight_swap import with_weights

__all__ = ["restored", "unmoved", "untouched", "with_weights"]
