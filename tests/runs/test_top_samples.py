"""Ranking of samples by their influence on the mean loss of all others."""

import numpy as np
import pytest
from scipy import stats

from stagewise.errors import InputError
from stagewise.runs.top_samples import leading_samples


def test_leading_samples_are_the_extremes_of_the_means_over_the_others(full, matrices):
    matrix = full["bif_within"].sel(step=20).values.astype(float)
    others = [np.delete(row, place).mean() for place, row in enumerate(matrix)]
    rounding = np.abs(matrix).max() * 2.0**-11
    np.testing.assert_allclose(full["sample_bif"].sel(step=20, part="within"), others, atol=rounding)
    exact = matrices["bif"].sel(step=20, part="total").values
    means = [np.delete(row, place).mean() for place, row in enumerate(exact)]
    np.testing.assert_allclose(matrices["sample_bif"].sel(step=20, part="total"), means, rtol=1e-12)
    run = full.assign(equilibrated=("step", [1, 1, 1]), reference_equilibrated=("step", [1.0, 1.0, 1.0]))
    found = leading_samples(run, 20, 3, confidence=0.8)
    order = np.argsort(full["sample_bif"].sel(step=20, part="within").values)
    negative = [int(row) for row in order if others[row] < 0][:3]
    chosen = found["sample"].sel(side="helpful").values
    assert chosen[chosen >= 0].tolist() == negative
    errors = full["sample_bif_se"].sel(step=20, part="within").values[negative]
    half = (found["high"] - found["value"]).sel(side="helpful").values[: len(negative)]
    np.testing.assert_allclose(half, stats.t.ppf(0.9, 2) * errors)
    with pytest.raises(InputError, match="got part='x'"):
        leading_samples(run, 20, part="x")
    with pytest.raises(InputError, match="sample_bif"):
        leading_samples(run.drop_vars("sample_bif"), 20)
