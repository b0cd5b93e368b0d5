"""Choice of the scalars to log: all values for few groups, those of the strongest pairs for many."""

from collections.abc import Callable, Iterable, Sequence

import xarray as xr

from stagewise.influence.split import PARTS
from stagewise.reporting import tags
from stagewise.runs.strongest import strongest_pairs

MOST_SCALARS = 60
"""Maximal number of scalar tags of a run with more than :data:`FEW_GROUPS` groups."""

FEW_GROUPS = 4
"""Maximal number of groups for which all values of all pairs are logged."""

_MOST_CURVES = 12
"""Maximal number of groups, and of pairs of two groups, with curves in a run with many groups."""

_ALWAYS = (
    tags.BETWEEN_SHARE, tags.FLIP_FRACTION, tags.Z_MEDIAN, *(tags.trace(part) for part in PARTS),
    tags.SIGNAL, tags.THRESHOLD, tags.IN_WINDOW,
    tags.RHAT_MAX, tags.ESS_MIN, tags.DRIFT, tags.LOSS_RISE, tags.SECONDS, tags.OVERHEAD,
    tags.RHAT_GROUPS, tags.ESS_GROUPS, tags.MINIBATCH_NOISE, tags.FLAGGED, tags.CHAINS_DROPPED, tags.SKIPPED,
    tags.LLC_LOCALIZED, tags.LLC_SECONDS, tags.LLC_ALL,
    tags.NUM_WINDOWS, tags.FIRST_PEAK, tags.FLAGGED_SHARE,
)  # fmt: skip
_OF_SAMPLES = (
    tags.MCSE_MEAN, tags.MCSE_MAX, tags.CHAIN_SHARE, tags.DRAW_SHARE, tags.DISTANCE, tags.GRADIENT_OVER_EPS,
)  # fmt: skip
"""Diagnostics that are only logged for few groups."""

_PAIRS: tuple[tuple[str, Callable[[str, str], str]], ...] = (
    ("graddot", tags.gradient_dot),
    ("control_group_bif", tags.control),
    ("tracin", tags.tracin),
    ("damped_influence", tags.damped_influence),
)

Pairs = Sequence[tuple[str, str]]


def _tags(pairs: Iterable[tuple[str, str]], *tag_of: Callable[[str, str], str]) -> list[str]:
    return [make(name, other) for make in tag_of for name, other in pairs]


def _of_part(make: Callable[[str, str, str], str], part: str) -> Callable[[str, str], str]:
    return lambda name, other: make(part, name, other)


def optional_scalars(names: Sequence[str]) -> frozenset[str]:
    """Returns the tags that a logger may omit: of groups, of pairs of groups, and diagnostics of samples.

    Args:
        names: of the groups.
    """
    pairs = [(name, other) for row, name in enumerate(names) for other in names[row:]]
    makers = [
        _of_part(make, part) for make in (tags.influence, tags.influence_error, tags.influence_z) for part in PARTS
    ]
    found = [*_OF_SAMPLES, *_tags(pairs, *makers, *(make for _, make in _PAIRS)), tags.llc_error("all")]
    found += [make(name) for make in (tags.group_loss, tags.llc, tags.llc_error) for name in names]
    return frozenset(found) - {tags.LLC_ALL}


def choose_scalars(probe: xr.Dataset, *, reserved: int = 0) -> list[str]:
    """Chooses among the :func:`optional_scalars` of a run at its first probe, once, so that no curve starts late.

    For up to four groups: all values of every pair; errors and z-scores as long as there are at most 60 tags. For more
    groups, at most 60 tags: losses and influence within phases of each group (the twelve that influence themselves
    most, if there are more), then of the strongest pairs of two, then the groups' learning coefficients if there is
    room for all. The store has the rest, and figures show the strongest pairs of the whole run.

    Args:
        probe: data set of the first probe, with group influence.
        reserved: tags that other callbacks of the run log.

    Returns:
        Tags, in order.
    """
    names = [str(name) for name in probe["group"].values]
    ranked = _ranked(probe, names)
    room = MOST_SCALARS - reserved - len(_ALWAYS)
    return _of_few(probe, names, ranked, room) if len(names) <= FEW_GROUPS else _of_many(names, ranked, room)


def _ranked(probe: xr.Dataset, names: Sequence[str]) -> Pairs:
    """Returns pairs with influence, the strongest first."""
    at = probe[["group_bif", "group_bif_se", *_chains(probe)]].expand_dims(step=[int(probe.attrs["step"])])
    return strongest_pairs(at, len(names) ** 2)


def _chains(probe: xr.Dataset) -> list[str]:
    known = ("chains_dropped", "chains_common", "equilibrated", "reference_equilibrated")
    return [name for name in known if name in probe]


def _of_few(probe: xr.Dataset, names: Sequence[str], ranked: Pairs, room: int) -> list[str]:
    # TracIn needs an interval between two probes, so the first one lacks it.
    measured = {*probe.data_vars, *(["tracin"] if "graddot" in probe else [])}
    of_pairs = [make for variable, make in _PAIRS if variable in measured]
    kept = [*_OF_SAMPLES, *map(tags.group_loss, names), *map(tags.llc, names)]
    kept += _tags(ranked, *(_of_part(tags.influence, part) for part in PARTS), *of_pairs)
    errors = [tags.llc_error("all"), *map(tags.llc_error, names)]
    within = [_tags(ranked, _of_part(make, "within")) for make in (tags.influence_z, tags.influence_error)]
    others = [
        _tags(ranked, _of_part(make, part))
        for part in PARTS if part != "within"
        for make in (tags.influence_z, tags.influence_error)
    ]  # fmt: skip
    for further in (*within, errors, *others):
        if len(kept) + len(further) <= room:
            kept += further
    return list(dict.fromkeys(kept))


def _of_many(names: Sequence[str], ranked: Pairs, room: int) -> list[str]:
    most = max(1, min(_MOST_CURVES, 3 * room // 8))
    groups = names if len(names) <= most else _strongest_groups(names, ranked)[:most]
    shown = [name for name in names if name in groups]
    selves = [(name, name) for name in shown if (name, name) in set(ranked)]
    kept = [*_tags(selves, _of_part(tags.influence, "within")), *map(tags.group_loss, shown)]
    cross = [pair for pair in ranked if pair[0] != pair[1]][: max(0, min(_MOST_CURVES, room - len(kept)))]
    kept += _tags(cross, _of_part(tags.influence, "within"))
    coefficients = [tags.llc(name) for name in shown]
    return kept + (coefficients if len(kept) + len(coefficients) <= room else [])


def _strongest_groups(names: Sequence[str], ranked: Pairs) -> list[str]:
    """Returns groups by their influence on themselves; those without such a pair come last."""
    return list(dict.fromkeys([*(name for name, other in ranked if name == other), *names]))
