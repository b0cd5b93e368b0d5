"""Baselines of BIF curves: gradient dot product, TracIn, damped influence function."""

from stagewise.influence.baselines.damped import damped_influence
from stagewise.influence.baselines.graddot import gradient_dot
from stagewise.influence.baselines.tracin import TracIn

__all__ = ["TracIn", "damped_influence", "gradient_dot"]
