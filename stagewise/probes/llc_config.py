"""Settings of the local learning coefficient."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import at_least, more_than
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.preconditioners.ekfac import EKFAC

_ADVICE = "leave it out to measure from the draws of influence"


@dataclass(frozen=True)
class LLCConfig:
    """Settings of the local learning coefficient, see :mod:`stagewise.influence.llc`.

    With nothing set it is taken from the draws of influence, and is free. With any number set, chains of its own are
    run at every probe beside those of influence, with that number and what influence has for all else but the two that
    say otherwise below; their time counts as the probe's.

    Attributes:
        enabled: False leaves the coefficient out.
        lr: step size of its own chains. If None that of influence, divided by the factor by which nbeta or localization
            are larger (the larger factor of the two), so that in no direction a step is longer than in the chains of
            influence; with EK-FAC, which scales steps itself, that of influence as it is.
        nbeta: of its own chains; n / log n for n samples is the usual choice (Watanabe 2013). The heat of minibatches
            grows with it.
        localization: of its own chains; lower ones leave more of the coefficient to the loss, as long as they exceed
            nbeta times the most negative curvature.
        num_chains: of its own.
        num_draws: of its own, for each chain.
        num_burnin_steps: of its own chains. If None and one of the first three is set, it follows from lr times
            localization as ``auto`` of the sampler does.
        num_steps_bw_draws: of its own chains.

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
        """The numbers that are set."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "enabled"}
        return {name: value for name, value in named.items() if value is not None}

    def own_sgld(self, sgld: SGLDConfig) -> SGLDConfig | None:
        """The sampler of its own chains; None where the draws of influence do.

        Args:
            sgld: of influence.

        Raises:
            InputError: the numbers do not fit to what influence has, e.g. a step too large for the localization.
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
        """Factor by which the curvature of the target is larger, in any direction, at most."""
        pairs = ((self.nbeta, sgld.nbeta), (self.localization, sgld.localization))
        # What is not known, or 0, has no factor: the other one is all there is to go by.
        factors = [1.0 if own is None else own / theirs for own, theirs in pairs if theirs != "auto" and theirs > 0]
        return max((factor for factor in factors if factor > 0), default=1.0)
