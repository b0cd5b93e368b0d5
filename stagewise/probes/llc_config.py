"""Settings of the local learning coefficient."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, TypeVar

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import at_least, more_than
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.preconditioners.ekfac import EKFAC

_ADVICE = "leave it out to measure from the draws of influence"


Settings = TypeVar("Settings", bound=SGLDConfig)


@dataclass(frozen=True)
class LLCConfig:
    """Settings of the local learning coefficient, see :mod:`stagewise.influence.llc`.

    By default it is computed from the draws of influence, at no cost. If any number is set, separate chains run at
    every probe, with the set numbers and otherwise the settings of influence, except as stated below. Their time counts
    as the probe's.

    Attributes:
        enabled: False disables the coefficient.
        lr: step size of the separate chains. If None, that of influence divided by the larger of the factors by which
            nbeta and localization are increased, so that steps are no longer than those of influence in any direction;
            with EK-FAC, which scales steps itself, that of influence.
        nbeta: of the separate chains; n / log n for n samples is the usual choice (Watanabe 2013). The heat of
            minibatches grows with it.
        localization: of the separate chains; with lower values more of the coefficient is due to the loss, as long as
            they exceed nbeta times the most negative curvature.
        num_chains: number of separate chains.
        num_draws: of each separate chain.
        num_burnin_steps: of the separate chains. If None and one of the first three is set, derived from lr times
            localization like ``auto`` of the sampler.
        num_steps_bw_draws: of the separate chains.

    Raises:
        InputError: a number out of range.
    """

    enabled: bool = True
    lr: Annotated[float, more_than(0, _ADVICE)] | None = None
    nbeta: Annotated[float, more_than(0, _ADVICE)] | None = None
    localization: Annotated[float, at_least(0, _ADVICE)] | None = None
    num_chains: Annotated[int, at_least(1, _ADVICE)] | None = None
    num_draws: Annotated[int, at_least(2, _ADVICE)] | None = None
    num_burnin_steps: Annotated[int, at_least(0, _ADVICE)] | None = None
    num_steps_bw_draws: Annotated[int, at_least(1, _ADVICE)] | None = None

    def __post_init__(self) -> None:
        settle_fields(self, prefix="llc.")

    def given(self) -> dict[str, float]:
        """Returns the numbers that are set."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "enabled"}
        return {name: value for name, value in named.items() if value is not None}

    def own_sgld(self, sgld: Settings) -> Settings | None:
        """Returns the sampler of the separate chains; None if the draws of influence are used.

        Args:
            sgld: of influence.

        Raises:
            InputError: the numbers are incompatible with the settings of influence, e.g. a step too large for the
                localization.
        """
        given: dict[str, Any] = dict(self.given())
        if not (self.enabled and given):
            return None
        if {"lr", "nbeta", "localization"} & set(given):
            given.setdefault("num_burnin_steps", "auto")
        if sgld.lr != "auto" and not isinstance(sgld.preconditioner, EKFAC):
            given.setdefault("lr", sgld.lr / self._growth(sgld))
        return replace(sgld, **given)

    def _growth(self, sgld: SGLDConfig) -> float:
        """Returns a bound on the increase of the target's curvature in any direction."""
        pairs = ((self.nbeta, sgld.nbeta), (self.localization, sgld.localization))
        # An unknown or zero value has no factor: only the other one counts.
        factors = [1.0 if own is None else own / theirs for own, theirs in pairs if theirs != "auto" and theirs > 0]
        return max((factor for factor in factors if factor > 0), default=1.0)
