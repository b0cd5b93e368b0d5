"""Claims of the paper checked against the figures: each with its conditions, in words for newcomers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from stagewise.studies.toy.table import AIMS, Aim, Summary

HOLDS, CONDITION, NOT, CONTRADICTED = "holds", "holds only under a condition", "does not hold", "is not borne out here"


def _least(value: float) -> Aim:
    return Aim(value, least=True)


def _most(value: float) -> Aim:
    return Aim(value, least=False)


class Claim(NamedTuple):
    """Statement that the figures can contradict.

    Attributes:
        kind: :data:`HOLDS`, :data:`CONDITION` or :data:`NOT`.
        conditions: of the medians over seeds, all of which must be met: those of :data:`~table.AIMS` for the names in
            ``aims``, and these.
        aims: figures that must meet their aim.
        shown: further figures in the words, whose value does not decide.
        words: the statement; ``{name}`` is the median of a figure, with its range.
    """

    kind: str
    words: str
    aims: tuple[str, ...] = ()
    conditions: Mapping[str, Aim] = {}
    shown: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, Aim]:
        """Every figure that decides, with its condition."""
        return {name: AIMS[name] for name in self.aims} | dict(self.conditions)

    def borne_out(self, summary: Summary) -> bool:
        """True if the medians meet every condition."""
        return all(aim.met(summary[name]["median"]) for name, aim in self.needs.items())


CLAIMS = (
    Claim(
        HOLDS,
        "**The network learns in stages, and they are known.** Modes grow one after the other as the closed form says: "
        "to {closed_form_error_aligned} of their final strength from an aligned start, to {closed_form_error_gaussian} "
        "from the small Gaussian start of the run.",
        aims=("closed_form_error_aligned", "closed_form_error_gaussian"),
    ),
    Claim(
        HOLDS,
        "**The chains sample the posterior they say.** Influence from chains and from the local Gaussian posterior, "
        "which needs no sampling, correlate at {sgld_gaussian_r}, with slope {sgld_gaussian_slope}: finite steps make "
        "draws a little too wide, finite chains a little too narrow.",
        aims=("sgld_gaussian_r",),
        conditions={"sgld_gaussian_slope": _most(1.25)},
    ),
    Claim(
        HOLDS,
        "**The unrolled influence is exact**: within {tangent_error} (relative) of retraining with weight .99 for each "
        "item in turn.",
        aims=("tangent_error",),
    ),
    Claim(
        HOLDS,
        "**Influence changes its sign as stages pass.** Items of one branch help each other while what they share is "
        "learned, and harm each other while they are told apart. From helpful to harmful, beyond 3 standard errors on "
        "each side: a share of {sibling_flips} of the sibling pairs and {cousin_flips} of the cousin pairs.",
        aims=("sibling_flips", "cousin_flips"),
    ),
    Claim(
        HOLDS,
        "**BIF answers a question about the near future**: what if this item were left out for the next steps of "
        "training? It correlates with that retraining at {horizon_loo_r}, and has its sign in {horizon_loo_sign} of "
        "the cases that are significant by both ({horizon_loo_share_compared} of all). The scale is right too: the "
        "slope is {horizon_loo_slope} times what first order predicts.",
        aims=("horizon_loo_r", "horizon_loo_sign"),
        conditions={"horizon_loo_slope": _most(1.5)},
        shown=("horizon_loo_share_compared",),
    ),
    Claim(
        HOLDS,
        "**The between part finds the stages**: precision {transition_precision}, recall {transition_recall}. So do "
        "differences of the losses alone, without any chain (precision {baseline_precision}, recall "
        "{baseline_recall}): for *when*, the losses are enough.",
        aims=("transition_precision", "transition_recall"),
        conditions={"baseline_precision": _least(0.9), "baseline_recall": _least(0.9)},
    ),
    Claim(
        HOLDS,
        "**Influence cancels over a run.** Of what siblings did to each other by TracIn, a share of "
        "{sibling_net_over_gross} is left at the end of training; of what cousins did, {cousin_net_over_gross}. A sum "
        "over the run hides the stages.",
        conditions={"sibling_net_over_gross": _most(0.6), "cousin_net_over_gross": _most(0.9)},
    ),
    Claim(
        HOLDS,
        "**Items harm each other most before they are told apart**: the peak of harm across a branch lies at "
        "{branch_peak_ratio} of the step at which the hidden representations of its sides are half of their way apart.",
        conditions={"branch_peak_ratio": _most(0.95)},
    ),
    Claim(
        CONDITION,
        "**When a sign flips depends on the question.** For cousin pairs, what an item does from now on turns harmful "
        "at step {cousin_flip_step_chains} (chains) and {cousin_flip_step_horizon} (retraining for the horizon); what "
        "it has done since the start of training only at {cousin_flip_step_unrolled}, a factor {cousin_flip_delay}.",
        conditions={"cousin_flip_delay": _least(1.05)},
        shown=("cousin_flip_step_chains", "cousin_flip_step_horizon", "cousin_flip_step_unrolled"),
    ),
    Claim(
        CONDITION,
        "**Curves of relations, not single pairs.** All sibling pairs of a balanced tree behave alike, and so do "
        "cousins: the correlations above are those of a few mean curves. What is left of single pairs once these means "
        "are taken off correlates at {horizon_loo_pair_r} with retraining (the gradient dot product: "
        "{graddot_horizon_loo_pair_r}): so many draws do not resolve it.",
        conditions={"horizon_loo_pair_r": _most(0.8)},
        shown=("graddot_horizon_loo_pair_r",),
    ),
    Claim(
        CONDITION,
        "**Signs, where influence differs from zero.** Over all pairs and probes the sign agrees with retraining for "
        "the horizon in {horizon_loo_sign_all} only. Far pairs have little influence on each other; and once all is "
        "learned gradients vanish, and BIF shows how wide the posterior is, not what training would do.",
        conditions={"horizon_loo_sign_all": _most(0.95)},
    ),
    Claim(
        CONDITION,
        "**Ablation in a window follows BIF in the window, if the window is short and the effect is read where it "
        "ends**: r {window_end_r}, and {window_end_r_longest} for the longest windows. At the end of the run nothing "
        "is left to follow (r {run_end_r}; the size is {run_end_size} of that at the window's end). Read as a maximum "
        "over the run r is {maximum_r}: early windows are amplified by all that follows.",
        aims=("window_end_r",),
        conditions={"run_end_r": _most(0.5), "run_end_size": _most(0.1), "maximum_r": _most(0.9)},
        shown=("window_end_r_longest",),
    ),
    Claim(
        CONDITION,
        "**Gradients say nearly as much, here.** At strong localization BIF tends to minus the gradient dot product (r "
        "{graddot_r}), which needs no chains and has no noise. Against the drop for the horizon it has r "
        "{graddot_horizon_loo_r} (BIF {horizon_loo_r}) and the sign of {graddot_horizon_loo_sign_all} of all pairs "
        "(BIF {horizon_loo_sign_all}). What chains add is a look ahead, along the curvature, and error bars; whether "
        "that matters in larger networks this experiment does not tell.",
        conditions={"graddot_r": _least(0.9)},
        shown=("graddot_horizon_loo_r", "horizon_loo_r", "graddot_horizon_loo_sign_all", "horizon_loo_sign_all"),
    ),
    Claim(
        CONDITION,
        "**Nothing is claimed for far pairs**: a share of {far_flips} of them surely flips. Their influence is small.",
        shown=("far_flips",),
    ),
    Claim(
        NOT,
        "**BIF is not leave-one-out over the whole run.** The correlation is {full_loo_r}; the sign agrees in "
        "{full_loo_sign} of the pairs that differ from zero, in {full_loo_sign_all} of all (the gradient dot product: "
        "r {graddot_full_loo_r}). Nor is it the exact derivative of the whole run (r {unrolled_r}): that carries the "
        "history of the run, while BIF knows the present weights only. And one item is no small change: even the exact "
        "derivative correlates at {tangent_full_drop_r} with leaving it out.",
        conditions={"full_loo_r": _most(0.9), "unrolled_r": _most(0.9), "tangent_full_drop_r": _most(0.95)},
        shown=("full_loo_sign", "full_loo_sign_all", "graddot_full_loo_r"),
    ),
    Claim(
        NOT,
        "**Peaks of influence are not where the stages are.** The norm of the BIF finds the steps at which losses fall "
        "fastest with precision {bif_norm_precision} and recall {bif_norm_recall}, and the closed form's half-times "
        "with recall {bif_norm_half_time_recall}: it peaks between stages.",
        conditions={
            "bif_norm_precision": _most(0.5),
            "bif_norm_recall": _most(0.5),
            "bif_norm_half_time_recall": _most(0.5),
        },
    ),
)


def _shown(figure: Mapping[str, Any]) -> str:
    size = abs(figure["median"])
    form = ".0f" if size >= 10 else ".2f" if size >= 0.1 else ".2g"
    median, low, high = (f"{figure[name]:{form}}" for name in ("median", "min", "max"))
    return median if low == high else f"{median} [{low}, {high}]"


def sorted_claims(summary: Summary) -> dict[str, list[str]]:
    """Returns the claims in words, by kind; those that the figures contradict under :data:`CONTRADICTED`.

    Args:
        summary: see :func:`~stagewise.studies.toy.validation.summarize`.
    """
    found: dict[str, list[str]] = {HOLDS: [], CONDITION: [], NOT: [], CONTRADICTED: []}
    for claim in CLAIMS:
        names = [*claim.needs, *claim.shown]
        if all(name in summary for name in names):
            words = claim.words.format(**{name: _shown(summary[name]) for name in names})
            found[claim.kind if claim.borne_out(summary) else CONTRADICTED].append(words)
    return {kind: words for kind, words in found.items() if words}
