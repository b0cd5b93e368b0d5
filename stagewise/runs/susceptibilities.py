"""Susceptibilities: response of components to classes of data, from chains that move one component each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.errors import InputError, require
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.sign import unit
from stagewise.influence.split import Centering
from stagewise.influence.uncertainty import error_over_chains

Array = NDArray[np.float64]


def _response(whole: Array, classes: Array, centering: Centering, chains: list[int]) -> Array:
    """Minus the covariance of ``whole`` [chain, draw] with ``classes`` [chain, draw, group]."""
    axes = {Centering.chain: (1,), Centering.step: (0,), Centering.pooled: (0, 1)}[centering]
    loss, others = whole[chains], classes[chains]
    loss, others = (values - values.mean(axis=axes, keepdims=True) for values in (loss, others))
    return -np.einsum("cd,cdg->g", loss, others) / loss.size


def susceptibilities(
    draws: Mapping[str, GroupDraws],
    counts: Mapping[str, int],
    num_losses: int,
    *,
    relative: bool = False,
    centering: Centering = Centering.pooled,
) -> xr.Dataset:
    """Computes the response matrix: how the mean loss moves with that of each group, through each component.

    An entry is -Cov(L, l_g) over the draws of the chains that moved one component, with L the mean of all observed
    losses and l_g that of group g, both per loss. Unlike group influence, it includes pairs within a sample.

    Heights in columns of different components are not comparable: chains over more weights, or over weights of another
    scale, move losses further. Standardise columns first, see :func:`principal_responses`.

    Args:
        draws: by name of the component, at one checkpoint, over the same samples and groups.
        counts: group to its number of losses, in the order of the groups of the draws.
        num_losses: of all observed losses.
        relative: True replaces l_g by l_g - L, so that a common change of all groups cancels.
        centering: of draws; 1/N moments.

    Returns:
        Data set over ``group`` and ``component``: ``response`` and ``response_se`` (jackknife over chains), nats^2,
        negative = losses move together; errors are NaN with fewer than two chains.

    Raises:
        InputError: no component, a count below 1, or draws of other groups.

    Source: Baker et al., susceptibilities; the sign is that of :mod:`stagewise.influence.sign`.
    """
    if not draws:
        raise InputError("got no component; expected at least one; pass a mapping from its name to its draws")
    sizes = np.array(list(counts.values()), dtype=np.float64)
    good = len(sizes) > 0 and bool((sizes >= 1).all())
    require(good, "counts", dict(counts), "one group or more, each of 1 loss or more", "leave empty groups out")
    require(num_losses >= 1, "num_losses", num_losses, "at least 1", "count the observed losses")
    values, errors = [], []
    for name, own in draws.items():
        num_chains, num_draws, num_samples = own.samples.shape
        if own.groups.shape[2] != len(sizes) * num_samples:
            raise InputError(
                f"got draws of {own.groups.shape[2] / num_samples:g} groups for component {name!r}; expected the "
                f"{len(sizes)} of counts; name each group that the draws were reduced to, in order"
            )
        whole = own.samples.sum(axis=2) / num_losses
        classes = own.groups.reshape(num_chains, num_draws, len(sizes), num_samples).sum(axis=3) / sizes
        if relative:
            classes = classes - whole[:, :, None]
        estimate = partial(_response, whole, classes, centering)
        value = estimate(list(range(num_chains)))
        values.append(value)
        errors.append(error_over_chains(estimate, value, num_chains, centering))
    axes = ("group", "component")
    return xr.Dataset(
        {
            "response": (axes, np.stack(values, axis=1), unit("response")),
            "response_se": (axes, np.stack(errors, axis=1), unit("response")),
        },
        coords={"group": list(counts), "component": list(draws)},
        attrs={"relative": relative, "centering": str(centering)},
    )


def standardized_columns(table: xr.DataArray) -> xr.DataArray:
    """Subtracts from each component its mean over groups, and divides by its standard deviation over them (ddof 0).

    Args:
        table: ``[group, component]``, of any unit.

    Returns:
        Pure numbers ``[group, component]``; zero where a component moves all groups alike.

    Raises:
        InputError: fewer than two groups, or values that are not finite.
    """
    ordered = table.transpose("group", "component")
    values = ordered.values.astype(np.float64)
    require(len(values) >= 2, "groups", len(values), "at least 2", "observe more classes")
    require(bool(np.isfinite(values).all()), "values", "NaN or infinite ones", "finite ones", "leave components out")
    centred = values - values.mean(axis=0)
    spread = values.std(axis=0)
    # What is left of equal values is rounding.
    flat = spread <= 1e-12 * np.abs(values).max(axis=0)
    scaled = np.where(flat, 0.0, centred / np.where(flat, 1.0, spread))
    return ordered.copy(data=scaled).assign_attrs(units="1")


@dataclass(frozen=True)
class PrincipalResponses:
    """Principal components of a response matrix with standardised columns.

    Attributes:
        scores: ``[group, number]``: where each group lies along each principal component; pure numbers.
        loadings: ``[component, number]``: unit vectors; the largest entry of each is positive.
        shares: ``[number]``: of the variance, decreasing; they add up to 1.
    """

    scores: xr.DataArray
    loadings: xr.DataArray
    shares: xr.DataArray


def principal_responses(table: xr.DataArray) -> PrincipalResponses:
    """Decomposes a response matrix, columns standardised, by numpy's singular value decomposition.

    Args:
        table: ``response`` of :func:`susceptibilities`, ``[group, component]``.

    Raises:
        InputError: fewer than two groups, values that are not finite, or no component that separates groups.
    """
    scaled = standardized_columns(table)
    left, sizes, right = np.linalg.svd(scaled.values, full_matrices=False)
    power = float((sizes**2).sum())
    require(power > 0, "table", "columns that are all flat", "a component that moves groups apart", "add components")
    rows = np.arange(len(sizes))
    signs = np.sign(right[rows, np.abs(right).argmax(axis=1)])
    number = {"number": rows + 1}
    return PrincipalResponses(
        xr.DataArray(left * sizes * signs, {"group": scaled["group"].values, **number}, ("group", "number")),
        xr.DataArray(
            (right * signs[:, None]).T, {"component": scaled["component"].values, **number}, ("component", "number")
        ),
        xr.DataArray(sizes**2 / power, number, ("number",)),
    )
