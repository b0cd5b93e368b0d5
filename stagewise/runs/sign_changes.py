"""Sign changes of the influence of groups over a run, with the probability of false ones.

Only of the part within phases. The sign of between, and thus of total, is that of the product of two changes of losses
since the reference probe: between close probes it fluctuates with the noise of training, which is common to all chains
and not part of the error over chains.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from stagewise.checks.counted import counted
from stagewise.errors import InputError, require
from stagewise.phases.flips import SignFlip, min_z_for_chance, sure_limit
from stagewise.runs.curves import flip_degrees, pairs_to_read, sure_flips
from stagewise.runs.equilibrium import settled_probes, unsettled_words
from stagewise.runs.sure_signs import SureSign, sure_signs


@dataclass(frozen=True)
class SignChange:
    """Sign change of a curve.

    Attributes:
        group: whose weight.
        group_j: whose loss.
        flip: position and significance.
        over_all: True if both sides are also significant with the probability for *all* curves together.
    """

    group: str
    group_j: str
    flip: SignFlip
    over_all: bool

    def record(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        flip = {name: value for name, value in asdict(self.flip).items() if abs(value) != float("inf")}
        return {
            "group": self.group,
            "group_j": self.group_j,
            "words": self.flip.words,
            "over_all_curves": self.over_all,
            **flip,
        }


@dataclass(frozen=True)
class SignChanges:
    """All sign changes of a run.

    Attributes:
        found: by pair, in order of steps.
        num_curves: number of curves.
        num_probes: of each curve, including those out of equilibrium.
        chance: probability that noise alone makes a change in one curve.
        left_out: number and flags of the omitted probes out of equilibrium, or None.
        limit: standard errors beyond which a side of a change is significant; None if no probe has an error.
        one_sided: curves with one significant sign only, see
            :func:`~stagewise.runs.sure_signs.sure_signs`.
        smallest: influence that would be significant at half of the probes and curves, nats^2; None if none has an
            error.
    """

    found: tuple[SignChange, ...]
    num_curves: int
    num_probes: int
    chance: float
    left_out: str | None = None
    limit: float | None = None
    one_sided: tuple[SureSign, ...] = ()
    smallest: float | None = None

    def why_none(self) -> str:
        """Explains the detection limit, if no change was found."""
        if self.limit is None or self.smallest is None:
            return (
                "no probe has an error that means something, which takes two chains or more, in equilibrium: raise "
                "sgld.num_chains, and check the flags"
            )
        text = (
            f"a side is sure beyond {self.limit:.1f} standard errors over chains, which takes an influence of "
            f"{self.smallest:.2g} nats² in the median"
        )
        alone = len(self.one_sided)
        text += (
            f"; {alone} of {counted(self.num_curves, 'curve')} {'is' if alone == 1 else 'are'} surely of one sign "
            "somewhere, and "
            "never of the other"
        )
        return (
            text
            if alone > self.num_curves / 2
            else f"{text}; narrower intervals see more, see the verdict for what would help most"
        )

    def markdown(self) -> str:
        """Returns the numbers of curves and of changes, a table if there are any, and one-sided curves."""
        parts = [self._changes()]
        if self.one_sided:
            head = (
                "Curves that are surely of one sign, and nowhere of the other (noise alone makes one of a curve with "
                f"probability {self.chance:g} or less):"
            )
            parts += [head, "\n".join(f"- {one.words}" for one in self.one_sided)]
        return "\n\n".join(parts)

    def _changes(self) -> str:
        sure = sum(change.over_all for change in self.found)
        intro = (
            f"{counted(self.num_curves, 'curve')} of {counted(self.num_probes, 'probe')}, within part, "
            f"{'was' if self.num_curves == 1 else 'were'} tested. In a curve of noise alone a change is found "
            f"with probability {self.chance:g} or less, so that {self.chance * self.num_curves:.1f} changes "
            "are to be expected by chance. "
        )
        if self.left_out is not None:
            intro += f"No change rests on the {self.left_out}. "
        if not self.found:
            return f"{intro}**No sign change was found.** Why: {self.why_none()}."
        intro += (
            f"**{len(self.found)} found**, of which {sure} also stand at that probability for *all curves together*."
        )
        header = "| influence | turns | at step | between | z before, after | all curves |"
        rows = [
            f"| {change.group} ~ {change.group_j} | {change.flip.words} | {change.flip.step:,.0f} | "
            f"{change.flip.earliest:,} to {change.flip.latest:,} | "
            f"{change.flip.z_before:+.1f}, {change.flip.z_after:+.1f} | "
            f"{'yes' if change.over_all else '-'} |"
            for change in self.found
        ]
        return "\n".join([intro, "", header, "|---|---|---|---|---|---|", *rows])


def find_sign_changes(
    run: xr.Dataset, pairs: Sequence[tuple[str, str]] | None = None, *, chance: float = 0.05
) -> SignChanges:
    """Finds sign changes in the influence between groups, each pair once (it is symmetric).

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        pairs: of groups; all that have losses in two samples if None.
        chance: probability with which noise alone, independent at each probe, makes a change in one curve, see
            :func:`~stagewise.phases.flips.min_z_for_chance`.

    Raises:
        InputError: no group influence, fewer than two probes, or an unknown group.
    """
    if "group_bif" not in run or "step" not in run.dims:
        raise InputError("got a data set that is not a run with group_bif; expected what open_run returns")
    names = [str(name) for name in run["group"].values]
    known = run["group_bif"].sel(part="total").notnull().any("step")
    if pairs is None:
        chosen = [(one, two) for one, two in pairs_to_read(run) if bool(known.sel(group=one, group_j=two))]
    else:
        chosen = list(pairs)
        unknown = sorted({name for pair in chosen for name in pair} - set(names))
        require(not unknown, "groups", unknown, f"some of {names}", "name groups of this run")
    num_probes, num_curves = run.sizes["step"], len(chosen)
    one_curve = min_z_for_chance(num_probes, chance)
    degrees = flip_degrees(run)
    strict = sure_limit(min_z_for_chance(num_probes, chance / max(1, num_curves)), degrees)
    found = []
    for group, group_j in chosen:
        for flip in sure_flips(run, group, group_j, min_z=one_curve):
            over_all = min(abs(flip.z_before), abs(flip.z_after)) > strict
            found.append(SignChange(group, group_j, flip, over_all))
    turning = {(change.group, change.group_j) for change in found}
    still = [pair for pair in chosen if pair not in turning]
    limit = None if degrees is None else sure_limit(one_curve, degrees)
    return SignChanges(
        tuple(found),
        num_curves,
        num_probes,
        chance,
        unsettled_words(run),
        limit=limit,
        one_sided=tuple(sure_signs(run, still, chance=chance)),
        smallest=None if limit is None else _smallest(run, chosen, limit),
    )


def _smallest(run: xr.Dataset, pairs: Sequence[tuple[str, str]], limit: float) -> float | None:
    """Returns the median over probes in equilibrium and curves of the detection limit, nats^2."""
    errors = run["group_bif_se"].sel(part="within").isel(step=settled_probes(run))
    found = np.concatenate([errors.sel(group=one, group_j=two).values for one, two in pairs] or [np.zeros(0)])
    found = found[np.isfinite(found)]
    return limit * float(np.median(found)) if found.size else None
