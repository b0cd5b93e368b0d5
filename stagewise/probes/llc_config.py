"""Settings of the local learning coefficient."""

import math
from dataclasses import dataclass, fields, replace

from stagewise.errors import require
from stagewise.sampling.config import SGLDConfig

_LEAST = {"num_chains": 1, "num_draws": 2, "num_burnin_steps": 0, "num_steps_bw_draws": 1}


@dataclass(frozen=True)
class LLCConfig:
    """How the local learning coefficient is measured, see :mod:`stagewise.influence.llc`.

    With nothing set it is taken from the draws of influence, and is free. With any number set, chains of its own are
    run at every probe beside those of influence, with that number and all else as influence has it; their time counts
    as the probe's.

    Attributes:
        enabled: False leaves the coefficient out.
        lr: step size of its own chains; that of influence, for this and all below, if None.
        nbeta: of its own chains. 1 / log n times n samples is Watanabe's choice.
        localization: of its own chains; lower ones leave more of the coefficient to the loss, as long as they exceed
            nbeta times the most negative curvature.
        num_chains: of its own.
        num_draws: of its own, for each chain.
        num_burnin_steps: of its own chains: with a weaker localization, chains need longer to come to equilibrium.
        num_steps_bw_draws: of its own chains.

    Raises:
        InputError: a number out of range.
    """

    enabled: bool = True
    lr: float | None = None
    nbeta: float | None = None
    localization: float | None = None
    num_chains: int | None = None
    num_draws: int | None = None
    num_burnin_steps: int | None = None
    num_steps_bw_draws: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if name in _LEAST:
                least = _LEAST[name]
                good = isinstance(value, int) and not isinstance(value, bool) and value >= least
                expected = f"an integer >= {least}, or null for that of influence"
            elif name == "localization":
                good, expected = math.isfinite(value) and value >= 0, "0 or more, or null for that of influence"
            else:
                good, expected = math.isfinite(value) and value > 0, "more than 0, or null for that of influence"
            require(good, f"llc.{name}", value, expected, "leave it out to measure from the draws of influence")

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
        given = self.given()
        return replace(sgld, **given) if self.enabled and given else None  # type: ignore[arg-type]
