"""What of the paper's picture the figures bear out: each claim with its condition, in words for newcomers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Summary = Mapping[str, Mapping[str, Any]]

HOLDS, CONDITION, NOT = "holds", "holds only under a condition", "does not hold"


class Claim(NamedTuple):
    """A statement that the figures can contradict.

    Attributes:
        kind: :data:`HOLDS`, :data:`CONDITION` or :data:`NOT`.
        needs: figures that it speaks of; without one of them it is left out.
        borne_out: whether the figures say so, by their medians over seeds.
        words: the statement; ``{name}`` is the median of a figure, with its range.
    """

    kind: str
    needs: tuple[str, ...]
    borne_out: Callable[[Summary], bool]
    words: str


def _median(summary: Summary, name: str) -> float:
    return float(summary[name]["median"])


CLAIMS = (
    Claim(
        HOLDS,
        ("closed_form_error_aligned", "closed_form_error_gaussian"),
        lambda it: (
            _median(it, "closed_form_error_aligned") <= 0.01 and _median(it, "closed_form_error_gaussian") <= 0.12
        ),
        "**The network learns in stages, and they are known.** Modes grow one after the other as the closed form says: "
        "to {closed_form_error_aligned} of their final strength from an aligned start, to {closed_form_error_gaussian} "
        "from the small Gaussian start of the run.",
    ),
    Claim(
        HOLDS,
        ("sgld_gaussian_r", "sgld_gaussian_slope"),
        lambda it: _median(it, "sgld_gaussian_r") >= 0.98,
        "**The chains measure what they say.** Influence from chains and from the local Gaussian posterior, which "
        "shares no code with them, correlate at {sgld_gaussian_r}. Their slope is {sgld_gaussian_slope}: finite steps "
        "make draws a little too wide, finite chains a little too narrow.",
    ),
    Claim(
        HOLDS,
        ("tangent_error",),
        lambda it: _median(it, "tangent_error") <= 0.02,
        "**The unrolled influence is exact**: within {tangent_error} (relative) of retraining with weight .99 for each "
        "item in turn.",
    ),
    Claim(
        HOLDS,
        ("sibling_flips", "cousin_flips"),
        lambda it: _median(it, "sibling_flips") >= 0.9 and _median(it, "cousin_flips") >= 0.9,
        "**Influence changes its sign as stages pass.** Items of one branch help each other while the branch is "
        "learned, and harm each other while they are told apart. From helpful to harmful, by more than 3 standard "
        "errors on each side: a share of {sibling_flips} of the sibling pairs and {cousin_flips} of the cousin pairs.",
    ),
    Claim(
        HOLDS,
        ("horizon_loo_r", "horizon_loo_sign", "horizon_loo_share_compared"),
        lambda it: _median(it, "horizon_loo_r") >= 0.95 and _median(it, "horizon_loo_sign") >= 0.99,
        "**BIF answers a question about the near future**: what if this item were left out for the next steps of "
        "training? It correlates with that retraining at {horizon_loo_r}, and has its sign in {horizon_loo_sign} of "
        "the cases that both tell from zero ({horizon_loo_share_compared} of all).",
    ),
    Claim(
        HOLDS,
        ("transition_precision", "transition_recall", "baseline_precision", "baseline_recall"),
        lambda it: _median(it, "transition_precision") >= 0.9 and _median(it, "transition_recall") >= 0.9,
        "**The between part finds the transitions**: precision {transition_precision}, recall {transition_recall}. So "
        "do differences of the losses alone, without any chain (precision {baseline_precision}, recall "
        "{baseline_recall}): for *when*, the losses are enough; for *who helps whom*, they are not.",
    ),
    Claim(
        CONDITION,
        ("cousin_flip_step_chains", "cousin_flip_step_horizon", "cousin_flip_step_unrolled"),
        lambda it: (
            _median(it, "cousin_flip_step_chains") < _median(it, "cousin_flip_step_unrolled")
            and _median(it, "cousin_flip_step_horizon") < _median(it, "cousin_flip_step_unrolled")
        ),
        "**When a sign flips depends on the question.** For cousin pairs, what an item does from now on turns harmful "
        "at step {cousin_flip_step_chains} (chains) and {cousin_flip_step_horizon} (retraining for the horizon); what "
        "it has done since the start of training only at {cousin_flip_step_unrolled}.",
    ),
    Claim(
        CONDITION,
        ("horizon_loo_sign_all", "horizon_loo_share_compared"),
        lambda it: _median(it, "horizon_loo_sign_all") < 0.95,
        "**Signs, where influence is told from zero.** Over all pairs and probes the sign agrees with retraining in "
        "{horizon_loo_sign_all} only. Far pairs have little influence on each other; and once all is learned gradients "
        "vanish, and BIF shows how wide the posterior is, not what training would do.",
    ),
    Claim(
        CONDITION,
        ("window_end_r", "run_end_r", "maximum_r"),
        lambda it: _median(it, "window_end_r") >= 0.9 and _median(it, "run_end_r") < 0.5,
        "**Ablation in a window follows BIF in the window, if it is read where the window ends**: r {window_end_r}. "
        "Read at the end of the run it does not ({run_end_r}); read as a maximum over the run, less ({maximum_r}), "
        "since early windows are amplified by all that follows.",
    ),
    Claim(
        CONDITION,
        ("graddot_r",),
        lambda it: _median(it, "graddot_r") >= 0.9,
        "**Chains see more than gradients, a little.** At this localization BIF is close to minus the gradient dot "
        "product (r {graddot_r}), which costs no chain. What chains add here is the curvature, an error bar, and the "
        "between part; in networks without an exact gradient kernel, more.",
    ),
    Claim(
        CONDITION,
        ("far_flips",),
        lambda it: _median(it, "far_flips") < 1,
        "**Nothing is claimed for far pairs.** A share of {far_flips} of them flip by more than 3 standard errors. "
        "They have only the root in common.",
    ),
    Claim(
        NOT,
        ("full_loo_r", "full_loo_sign", "tangent_full_drop_r"),
        lambda it: _median(it, "full_loo_r") < 0.9,
        "**BIF is not leave-one-out over the whole run.** The correlation is {full_loo_r}, the sign that of "
        "{full_loo_sign} of the pairs told from zero. Leaving one item out is far from a small change (even the exact "
        "derivative correlates at {tangent_full_drop_r} with it), and it carries the history of the run, while BIF "
        "knows the present weights only.",
    ),
    Claim(
        NOT,
        ("bif_norm_precision", "bif_norm_recall"),
        lambda it: _median(it, "bif_norm_recall") < 0.9,
        "**Peaks of influence are not where the transitions are.** The norm of the BIF finds them with precision "
        "{bif_norm_precision} and recall {bif_norm_recall}: it peaks between transitions.",
    ),
)


def _shown(figure: Mapping[str, Any]) -> str:
    size = abs(figure["median"])
    form = ".0f" if size >= 10 else ".2f" if size >= 0.1 else ".2g"
    median, low, high = (f"{figure[name]:{form}}" for name in ("median", "min", "max"))
    return median if low == high else f"{median} [{low}, {high}]"


def sorted_claims(summary: Summary) -> dict[str, list[str]]:
    """The claims in words, by kind; those that the figures contradict under ``not borne out here``.

    Args:
        summary: see :func:`~stagewise.experiments.toy.validation.summarize`.
    """
    found: dict[str, list[str]] = {HOLDS: [], CONDITION: [], NOT: [], "not borne out here": []}
    for claim in CLAIMS:
        if all(name in summary for name in claim.needs):
            words = claim.words.format(**{name: _shown(summary[name]) for name in claim.needs})
            found[claim.kind if claim.borne_out(summary) else "not borne out here"].append(words)
    return {kind: words for kind, words in found.items() if words}
