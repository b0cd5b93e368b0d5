"""Signals that may show a transition, read from one probe or a whole run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.checks.bounds import settle_fields, shown
from stagewise.errors import InputError, require
from stagewise.influence.chain_counts import equilibrated_probes
from stagewise.phases.online_detector import Direction

Array = NDArray[np.float64]

LossesByStep = Mapping[int, Sequence[float]]
"""Losses at earlier probes by training step, nats, see :meth:`Signal.remember`."""


class Kind(StrEnum):
    """Kinds of signals, named by the prefix of their signals' names; A and B are groups.

    Members:
        between: square root of the between-norm less its noise floor, nats; rising. NaN without a reference, and at
            probes with a severe flag.
        losses_alone: half the length of the change of the samples' losses since the reference probe, at the training
            weights, nats; rising. Equals ``between`` without chains: the baseline that it must beat. The loss of a
            sequence is the sum of its token losses.
        group_losses_alone: the same for the mean losses of groups.
        group_loss: ``group_loss/A``, mean loss of a group at the training weights, nats; falling.
        contrast: ``contrast/A~B``, change since the reference probe of the mean loss of A less that of B, at the
            training weights, nats; falling. Noise common to both cancels: B is best a control in the same sequences, as
            ``first_copy`` is for ``induction``. It needs no chains. NaN without a reference.
        within: ``within/A~B``, within part of the influence of A and B on each other, nats^2, negative = helpful;
            falling.
        total: ``total/A~B``, the same for the sum of all parts. The between part alone is the square of a loss
            difference and thus no signal.
        llc: ``llc`` and ``llc/A``, local learning coefficient of all losses and of a group, a pure number, see
            :mod:`stagewise.influence.llc`; rising as a model learns, although it may also fall in a stage, see
            :func:`~stagewise.phases.stage_boundaries.find_boundaries`.
        chain_share: share of the variance of the losses explained by the chain of a draw; rising. A large share means
            that chains disagree, in a transition or because they are too short.
    """

    between = "between"
    losses_alone = "losses_alone"
    group_losses_alone = "group_losses_alone"
    group_loss = "group_loss"
    contrast = "contrast"
    within = "within"
    total = "total"
    llc = "llc"
    chain_share = "chain_share"


class _Facts(NamedTuple):
    """Facts common to all signals of a kind; ``num_groups`` lists the allowed numbers of groups in a name."""

    unit: str
    direction: Direction
    num_groups: tuple[int, ...]
    variable: str


_FACTS = {
    Kind.between: _Facts("nats", Direction.rising, (0,), "signal"),
    Kind.losses_alone: _Facts("nats", Direction.rising, (0,), "anchor_loss"),
    Kind.group_losses_alone: _Facts("nats", Direction.rising, (0,), "group_loss"),
    Kind.group_loss: _Facts("nats", Direction.falling, (1,), "group_loss"),
    Kind.contrast: _Facts("nats", Direction.falling, (2,), "group_loss"),
    Kind.within: _Facts("nats^2", Direction.falling, (2,), "group_bif"),
    Kind.total: _Facts("nats^2", Direction.falling, (2,), "group_bif"),
    Kind.llc: _Facts("1", Direction.rising, (0, 1), "llc"),
    Kind.chain_share: _Facts("1", Direction.rising, (0,), "chain_share"),
}


class Reading(NamedTuple):
    """Signal at one probe, or at each probe of a run.

    Attributes:
        value: ``[]`` or ``[step]``, in the unit of the signal; NaN where undefined.
        error: standard error of ``value``, of the same shape and unit; NaN where unknown. Losses and the chain share
            have none. Errors of influence and of the learning coefficient are over chains; that of influence is unknown
            if the chains of the probe or of its reference are out of equilibrium.
    """

    value: Array
    error: Array


@dataclass(frozen=True)
class Signal:
    """One signal: its name, unit, direction and computation.

    Attributes:
        kind: quantity measured.
        groups: names of its groups: none, one or two, as the kind requires.

    Raises:
        InputError: the wrong number of groups for the kind, or a contrast of a group with itself.
    """

    kind: Kind
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        settle_fields(self)
        counts = _FACTS[self.kind].num_groups
        words = " or ".join(map(str, counts))
        require(len(self.groups) in counts, "groups", shown(self.groups), f"{words} for {self.kind}", "name as many")
        apart = self.kind is not Kind.contrast or len(set(self.groups)) == 2
        require(apart, "groups", shown(self.groups), "two different ones for a contrast", "name a control")

    @classmethod
    def parse(
        cls,
        name: str,
        groups: Sequence[str] | None = None,
        *,
        kinds: Iterable[Kind] = tuple(Kind),
        setting: str = "signal",
    ) -> "Signal":
        """Returns the signal with a given name, such as ``between``, ``contrast/A~B`` or ``llc/A``.

        Args:
            name: kind, and after a slash the groups, separated by ``~``.
            groups: names of the existing groups; any if None.
            kinds: allowed kinds.
            setting: name of the setting, for the message.

        Raises:
            InputError: no such kind, the wrong number of groups, or an unknown group; the message lists the known
                names, and the nearest one.
        """
        allowed = list(kinds)
        kind, _, rest = name.partition("/") if isinstance(name, str) else ("", "", "")
        if kind in allowed:
            for split in _splits(rest):
                known = all(split) and (groups is None or set(split) <= set(groups))
                if len(split) in _FACTS[Kind(kind)].num_groups and known and _written(kind, split) == name:
                    return cls(Kind(kind), split)
        raise InputError(
            f"got {setting} {shown(name)}; expected one of {', '.join(_forms(allowed))}{_of_whom(groups)}; "
            f"{_advice(kind, rest, allowed, groups)}"
        )

    @property
    def name(self) -> str:
        """Name in tables, files and settings; the TensorBoard tag is ``influence/`` plus this name."""
        return _written(self.kind, self.groups)

    def __str__(self) -> str:
        return self.name

    @property
    def unit(self) -> str:
        """Unit of value and error: nats, nats^2 or 1."""
        return _FACTS[self.kind].unit

    @property
    def direction(self) -> Direction:
        """Direction in which a transition moves the signal."""
        return _FACTS[self.kind].direction

    @property
    def is_change(self) -> bool:
        """True for a change since the reference probe, whose losses must be remembered during a run."""
        return self.kind in (Kind.losses_alone, Kind.group_losses_alone, Kind.contrast)

    def is_in(self, data: xr.Dataset) -> bool:
        """Returns True if a probe or a run has the variables of the signal."""
        own = () if "group" not in data.coords else data["group"].values
        return _FACTS[self.kind].variable in data and all(name in own for name in self.groups)

    def read(self, data: xr.Dataset, earlier: LossesByStep | None = None) -> Reading:
        """Reads value and standard error, at one probe during a run or at all of a finished run: the same numbers.

        Args:
            data: of one probe, as the callback reports it, or of a run, see :func:`~stagewise.runs.open.open_run`.
            earlier: for a change at a single probe, losses at possible reference probes, see :meth:`remember`.

        Raises:
            InputError: the data do not have this signal.
        """
        if not self.is_in(data):
            raise self._missing(data)
        value, error = _READERS[self.kind](self, data, earlier or {})
        return Reading(value, np.full(value.shape, np.nan) if error is None else error)

    def losses(self, data: xr.Dataset) -> Array:
        """Returns the losses ``[..., loss]`` of which a change is taken, nats: those of samples, or of groups."""
        if self.kind is Kind.losses_alone:
            return sample_losses(data)
        return np.asarray(data["group_loss"].transpose(..., "group").values, dtype=np.float64)

    def remember(self, earlier: LossesByStep, probe: xr.Dataset) -> dict[int, list[float]]:
        """Returns the losses of all probes that later ones may have as reference: references never move back.

        Args:
            earlier: losses remembered so far.
            probe: the latest probe.

        Returns:
            Losses by training step, plain Python; a copy of ``earlier`` for a signal that is not a change.
        """
        if not self.is_change:
            return {at: list(losses) for at, losses in earlier.items()}
        step, reference = int(probe.attrs["step"]), int(probe.attrs["reference_step"])
        kept = {at: list(losses) for at, losses in earlier.items() if reference in (step, at) or at > reference}
        return {**kept, step: self.losses(probe).tolist()}

    def _missing(self, data: xr.Dataset) -> InputError:
        if self.kind is Kind.llc and "llc" not in data:
            return InputError(
                f"got signal {self.name!r} with probes that do not measure it; expected learning coefficients; set "
                "probe.llc.enabled to true"
            )
        names = [str(name) for name in data["group"].values] if "group" in data.coords else []
        try:
            Signal.parse(self.name, names)
        except InputError as error:
            return error
        return InputError(
            f"got signal {self.name!r} with data that have no {_FACTS[self.kind].variable}; expected some; pass what "
            "open_run returns"
        )


def sample_losses(data: xr.Dataset) -> Array:
    """Returns losses ``[..., sample]`` of a run or a probe at the training weights, nats, summed over tokens."""
    losses = data["anchor_loss"]
    if "token" in losses.dims:
        losses = losses.sum("token", dtype=np.float64, skipna=False)
    return np.array(losses.values, dtype=np.float64)


# Names


def _written(kind: str, groups: Sequence[str]) -> str:
    return f"{kind}/{'~'.join(groups)}" if groups else str(kind)


def _splits(rest: str) -> list[tuple[str, ...]]:
    """Returns possible group names in the part after the slash; groups of earlier versions may contain ``~``."""
    parts = rest.split("~")
    pairs = [("~".join(parts[:at]), "~".join(parts[at:])) for at in range(1, len(parts))]
    return [(), (rest,), *pairs] if rest else [()]


def _forms(kinds: Iterable[Kind]) -> list[str]:
    letters = ("A", "B")
    return [_written(kind, letters[:count]) for kind in kinds for count in _FACTS[kind].num_groups]


def _of_whom(groups: Sequence[str] | None) -> str:
    if groups is None:
        return ", with groups A and B"
    return f", with A and B of {', '.join(map(repr, groups))}" if groups else ", without groups"


def _advice(kind: str, rest: str, kinds: Sequence[Kind], groups: Sequence[str] | None) -> str:
    """Suggests the nearest existing name, part by part."""
    near = get_close_matches(kind, [str(each) for each in kinds], n=1)
    if near:
        counts = _FACTS[Kind(near[0])].num_groups
        for split in _splits(rest):
            if len(split) in counts:
                found = [
                    name if groups is None else next(iter(get_close_matches(name, groups, n=1)), None) for name in split
                ]
                if None not in found:
                    return f"did you mean {_written(near[0], [str(name) for name in found])!r}?"
    return "name one of these"


# Computation, common to a probe and a run

_Read = tuple[Array, Array | None]


def _floats(data: xr.DataArray) -> Array:
    return np.asarray(data.values, dtype=np.float64)


def _between(_: Signal, data: xr.Dataset, __: LossesByStep) -> _Read:
    return _floats(data["signal"]), _floats(data["signal_se"])


def _group_loss(signal: Signal, data: xr.Dataset, _: LossesByStep) -> _Read:
    return _floats(data["group_loss"].sel(group=signal.groups[0])), None


def _influence(signal: Signal, data: xr.Dataset, _: LossesByStep) -> _Read:
    at = {"part": str(signal.kind), "group": signal.groups[0], "group_j": signal.groups[1]}
    sure = data["group_bif_se"].sel(at).where(equilibrated_probes(data))
    return _floats(data["group_bif"].sel(at)), _floats(sure)


def _coefficient(signal: Signal, data: xr.Dataset, _: LossesByStep) -> _Read:
    if not signal.groups:
        return _floats(data["llc"]), _floats(data["llc_se"])
    own = data[["group_llc", "group_llc_se"]].sel(group=signal.groups[0])
    return _floats(own["group_llc"]), _floats(own["group_llc_se"])


def _chain_share(_: Signal, data: xr.Dataset, __: LossesByStep) -> _Read:
    return _floats(data["chain_share"]), None


def _now_and_before(signal: Signal, data: xr.Dataset, earlier: LossesByStep) -> tuple[Array, Array]:
    """Returns losses ``[..., loss]`` now and at the reference probe, nats; NaN without a reference."""
    now = signal.losses(data)
    before = np.full(now.shape, np.nan)
    if "step" in data.dims:
        steps, references = data["step"].values.tolist(), data["reference_step"].values.tolist()
        place = {step: row for row, step in enumerate(steps)}
        for row, (step, reference) in enumerate(zip(steps, references, strict=True)):
            if reference != step and reference in place:
                before[row] = now[place[reference]]
    elif data.attrs["reference_step"] != data.attrs["step"]:
        found = earlier.get(int(data.attrs["reference_step"]), ())
        if len(found) == len(now):  # else samples have been dropped since
            before[:] = found
    return now, before


def _length(signal: Signal, data: xr.Dataset, earlier: LossesByStep) -> _Read:
    now, before = _now_and_before(signal, data, earlier)
    # Dropped samples have no loss: the length is unknown if any were dropped since the reference.
    known = np.isfinite(now)
    same = known.any(axis=-1) & (known == np.isfinite(before)).all(axis=-1)
    length = np.linalg.norm(np.where(known, now - before, 0.0), axis=-1) / 2
    return np.asarray(np.where(same, length, np.nan)), None


def _contrast(signal: Signal, data: xr.Dataset, earlier: LossesByStep) -> _Read:
    names = data["group"].values.tolist()
    first, second = (names.index(group) for group in signal.groups)
    now, before = _now_and_before(signal, data, earlier)
    change = now - before
    return np.asarray(change[..., first] - change[..., second]), None


_READERS: dict[Kind, Callable[[Signal, xr.Dataset, LossesByStep], _Read]] = {
    Kind.between: _between,
    Kind.losses_alone: _length,
    Kind.group_losses_alone: _length,
    Kind.group_loss: _group_loss,
    Kind.contrast: _contrast,
    Kind.within: _influence,
    Kind.total: _influence,
    Kind.llc: _coefficient,
    Kind.chain_share: _chain_share,
}
