"""Sign and unit of everything called influence or BIF: minus a covariance of losses, so negative = helpful.

:func:`signed` applies the minus sign to a split. Influence between tokens does so itself, in ``token_bif_sums`` and
``token_bif``.
"""

import numpy as np
from numpy.typing import NDArray

from stagewise.influence.split import PARTS, Split

SIGN = "negative = helpful: more weight on sample i lowers the loss of sample j"
"""Sign of everything called influence or BIF."""

UNITS = "nats^2"
"""Unit of BIF; its correlation is a pure number."""


def unit(name: str) -> dict[str, str]:
    """Returns the attributes of an influence variable by name: correlations and z-scores are pure numbers."""
    return {"sign": SIGN, "units": "1" if "correlation" in name or name.endswith("_z") else UNITS}


def signed(parts: Split) -> NDArray[np.float64]:
    """Stacks the parts ``[part, ...]`` with the sign of influence: minus the covariances."""
    named = parts.parts()
    return np.stack([-named[name] for name in PARTS])
