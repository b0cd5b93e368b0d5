"""Table of the variables of a run: name, axes, unit, sign, meaning, source; the source of ``docs/variables.md``."""

import xarray as xr

from stagewise.influence.baselines import damped, graddot, tracin
from stagewise.influence.sign import SIGN, UNITS
from stagewise.runs.variable import Variable

NUMBER, NATS, SECONDS = "1", "nats", "s"
SHIFT_SIGN = "negative = the loss fell since the reference"

_PARTS_AND_GROUPS = ("part", "group", "group_j")
_GROUPS = ("group", "group_j")
_SAMPLES = ("part", "sample", "sample_j")
_BINS = ("part", "group", "position")
_TOKENS = ("token_part", "chosen", "token", "chosen_j", "token_j")
_BIF = "BIF, arXiv 2509.26544, 2510.12071"
_SPLIT = f"{_BIF}; law of total covariance"
_JACKKNIFE = "jackknife over chains, Quenouille 1956, Tukey 1958"
_LLC = "Lau et al. 2023, arXiv 2308.12108"
_SHARE = "stagewise.influence.llc"
_DIAGNOSTICS = "stagewise.sampling.diagnostics"
_VEHTARI = "Vehtari et al. 2021, arXiv 1903.08008"


def _influence(name: str, axes: tuple[str, ...], what: str, meaning: str, *, z: bool) -> list[Variable]:
    """Returns influence with its error, its correlation, the error of that, and its z."""
    found = [
        Variable(
            name, axes, UNITS, f"influence {what}", f"{meaning} Minus the covariance of the losses.", SIGN, _SPLIT
        ),
        Variable(
            f"{name}_se", axes, UNITS, f"standard error of the influence {what}",
            f"Jackknife standard error over chains of `{name}`. NaN with one chain.", "", _JACKKNIFE,
        ),
        Variable(
            f"{name}_correlation", axes, NUMBER, f"influence {what}, as a correlation",
            f"`{name}`, every part divided by the total standard deviations.", SIGN, _SPLIT,
        ),
        Variable(
            f"{name}_correlation_se", axes, NUMBER, f"standard error of the influence {what}, as a correlation",
            f"Jackknife standard error over chains of `{name}_correlation`.", "", _JACKKNIFE,
        ),
    ]  # fmt: skip
    if z:
        found.append(
            Variable(
                f"{name}_z", axes, NUMBER, f"z of the influence {what}",
                f"`{name}` over `{name}_se`: Student's t with one degree of freedom less than chains. NaN out of "
                "equilibrium.", SIGN, "Student 1908",
            )
        )  # fmt: skip
    return found


def _diagnostic(
    name: str, units: str, long_name: str, meaning: str, *, sign: str = "", source: str = _DIAGNOSTICS
) -> Variable:
    return Variable(name, (), units, long_name, meaning, sign, source)


def _coordinate(name: str, axes: tuple[str, ...], units: str, long_name: str, meaning: str) -> Variable:
    return Variable(name, axes, units, long_name, meaning, coordinate=True)


def _control(which: str, long_name: str, meaning: str) -> list[Variable]:
    name = f"control_{which}"
    return [
        Variable(name, _GROUPS, UNITS, long_name, meaning, SIGN, "negative control, arXiv 2507.21449"),
        Variable(
            f"{name}_se", _GROUPS, UNITS, f"standard error of the {long_name}",
            f"Jackknife standard error over `control_chains` chains of `{name}`.", "", _JACKKNIFE,
        ),
    ]  # fmt: skip


def _coefficient(prefix: str, axes: tuple[str, ...], of: str) -> list[Variable]:
    name = f"{prefix}llc"
    every = ", of each group" if axes else ""
    coefficient = "local learning coefficient, nbeta (E[L] - L(w*))"
    return [
        Variable(
            name, axes, NUMBER, f"{coefficient}{every}",
            f"Local learning coefficient of {of}: nbeta (E[L] - L(w*)).",
            "larger = more complex; below 0 = the loss slopes at these weights", _LLC,
        ),
        Variable(
            f"{name}_se", axes, NUMBER, f"standard error over chains of the {coefficient}{every}",
            f"Standard error over `llc_chains` chains of `{name}`. NaN with one chain.", "", "Student 1908",
        ),
        Variable(
            f"{name}_localized_share", axes, NUMBER, f"localized share d log llc / d log nbeta{every}",
            f"Share of `{name}` due to the localization and not to the loss: 0 = none, 1 = all. Far outside of these "
            "it is no share, and reports show none.", "", _SHARE,
        ),
        Variable(
            f"{name}_localized_share_se", axes, NUMBER,
            f"jackknife error over chains of the localized share{every}",
            f"Jackknife standard error over chains of `{name}_localized_share`.", "", _JACKKNIFE,
        ),
    ]  # fmt: skip


VARIABLES: tuple[Variable, ...] = (
    # Axes.
    _coordinate("step", ("step",), "steps", "training step", "Training step of each probe (`trainer.global_step`)."),
    _coordinate(
        "reference_step", (), "steps", "training step of the reference probe",
        "Training step of the probe that between and drift are relative to; the probe's own where it has none.",
    ),
    _coordinate("part", ("part",), "", "part of the influence", "within, drift, between, and total, their sum."),
    _coordinate("group", ("group",), "", "group", "Group whose weight changes: names of the observed groups."),
    _coordinate("group_j", ("group_j",), "", "group, of the loss", "Group whose loss responds: the same names."),
    _coordinate("position", ("position",), "tokens", "first position of the bin", "First token of each bin."),
    _coordinate("position_end", ("position",), "tokens", "end of the bin", "The token after the last one of each bin."),
    _coordinate("token_part", ("token_part",), "", "part of token influence", "within, drift, and total, their sum."),
    _coordinate("chosen", ("chosen",), "", "chosen sample", "Positions in the observed set, `probe.token_samples`."),
    _coordinate("chosen_j", ("chosen_j",), "", "chosen sample, of the loss", "The same positions."),
    _coordinate("chain", ("chain",), "", "chain", "Numbers of the chains that were kept, with `probe.save_trace`."),
    _coordinate(
        "sample_words", ("sample",), "", "text, label or number of the sample",
        "Beginning of the text of each observed sample, else its label, else its number; its attribute `kind` tells "
        "which. `sample_words: false` of the callback leaves it out.",
    ),
    _coordinate(
        "in_group", ("group", "sample"), "", "group has a loss of the sample",
        "True where a group has any loss of a sample; there where `sample_words` is.",
    ),
    # Influence.
    *_influence(
        "group_bif", _PARTS_AND_GROUPS, "of groups",
        "Mean over pairs of losses of the two groups in different samples. NaN without such a pair.", z=True,
    ),
    *_influence(
        "bif", _SAMPLES, "of samples", "Of each sample on each other one, with `probe.sample_matrices: all`.", z=False
    ),
    Variable(
        "sample_bif", ("part", "sample"), UNITS, "influence of each sample on the mean loss of all others",
        "Mean over the other observed samples of `bif`. Minus the covariance of the losses.", SIGN, _SPLIT,
    ),
    Variable(
        "sample_bif_se", ("part", "sample"), UNITS,
        "standard error of the influence of each sample on the mean loss of all others",
        "Jackknife standard error over chains of `sample_bif`. NaN with one chain.", "", _JACKKNIFE,
    ),
    Variable(
        "bif_within", ("sample", "sample_j"), UNITS, "influence of samples, within part",
        "Of each sample on each other one, in float32 rounded to 11 binary digits (`probe.sample_matrices: within`). "
        "Minus the covariance of the losses.", SIGN, _SPLIT,
    ),
    Variable(
        "bif_within_se", ("sample", "sample_j"), UNITS, "standard error of the influence of samples, within part",
        "Jackknife standard error over chains of `bif_within`, rounded to 8 binary digits.", "", _JACKKNIFE,
    ),
    *_influence(
        "position_bif", _BINS, "on positions",
        "Of each group on the losses at bins of token positions, with `probe.position_bins`.", z=True,
    ),
    *_influence(
        "token_bif", _TOKENS, "of tokens",
        "Of each token of the chosen samples on each other one, with `probe.token_samples`; read with "
        "`open_run(path, trace=True)`.", z=False,
    ),
    # Change since the reference, and the signal.
    Variable(
        "shift", ("sample",), NATS, "change of the mean loss since the reference",
        "Mean loss of each sample over the draws, less that at the reference probe.", SHIFT_SIGN,
        "stagewise.influence.bif",
    ),
    Variable(
        "shift_se", ("sample",), NATS, "standard error of the change of the mean loss",
        "Standard error over chains of `shift`. NaN without a reference.", "", "stagewise.influence.uncertainty",
    ),
    Variable(
        "shift_norm_se", (), NATS, "standard error of the length of the change",
        "Standard error over chains of the length of `shift` over all samples.", "", "stagewise.influence.uncertainty",
    ),
    Variable(
        "signal", (), NATS, "transition signal, square root of the between-norm",
        "Square root of the norm of the between part of samples, less its noise floor: half the length of `shift`.",
        "larger = more changed since the reference", "stagewise.phases.signal",
    ),
    Variable(
        "signal_se", (), NATS, "standard error of the transition signal",
        "Standard error of `signal`, before the floor is taken off. NaN out of equilibrium.", "",
        "stagewise.phases.signal",
    ),
    Variable(
        "signal_threshold", (), NATS, "noise floor of the transition signal",
        "What noise of chains alone adds to `signal` on average; subtracted from it.", "", "stagewise.phases.signal",
    ),
    Variable(
        "between_share", (), NUMBER, "share of between in total",
        "Trace of between over trace of total; noise alone gives about 1 / (2 effective draws).", "", _SPLIT,
    ),
    Variable(
        "flip_fraction", (), NUMBER, "share of pairs whose sign between turns",
        "Share of pairs of different samples of which total and within differ in sign.", "", _SPLIT,
    ),
    Variable(
        "z_median", (), NUMBER, "median z of the changes of losses",
        "Median over samples of |`shift`| / `shift_se`. NaN out of equilibrium.", "", "stagewise.influence.bif",
    ),
    # Losses.
    Variable(
        "group_loss", ("group",), NATS, "mean loss of the group",
        "Mean of the losses of each group at the training weights.", "", "stagewise.influence.groups",
    ),
    Variable(
        "anchor_loss", ("sample", "token"), NATS, "loss at the training weights",
        "Every observed loss at the training weights; without the axis `token` where samples have one loss.", "",
        "stagewise.losses.contract",
    ),
    Variable(
        "mask", ("sample", "token"), "", "mask of the losses",
        "False where a token is masked; without the axis `token` where samples have one loss.", "",
        "stagewise.losses.contract",
    ),
    Variable(
        "loss", ("chain", "draw", "sample", "token"), NATS, "loss of the draw",
        "Every recorded loss, with `probe.save_trace`; read with `open_run(path, trace=True)`.", "",
        "stagewise.sampling.trace",
    ),
    Variable(
        "distance", ("chain", "draw"), "weight units", "distance from the training weights",
        "|w - w*| of each draw, with `probe.save_trace`; read with `open_run(path, trace=True)`.", "",
        "stagewise.sampling.trace",
    ),
    # Learning coefficient.
    *_coefficient("", (), "the mean of all losses"),
    *_coefficient("group_", ("group",), "the mean loss of each group (data-refined, arXiv 2410.02984)"),
    Variable(
        "llc_localized", (), NUMBER, "1 where the localized share is above 0.5",
        "1 where `llc` is due more to the localization than to the loss.", "", _SHARE,
    ),
    Variable(
        "llc_chains", (), NUMBER, "chains behind the learning coefficient",
        "Chains that the learning coefficients and their errors are from.", "", _SHARE,
    ),
    Variable(
        "llc_note", (), "", "remarks on the learning coefficient",
        "Reasons not to read it as that of the loss, in words; empty if none.", "", _SHARE,
    ),
    _diagnostic(
        "llc_rhat", NUMBER, "largest R-hat of the mean losses",
        "Of the learning coefficient's own chains, over all losses and groups.", source=_VEHTARI,
    ),
    _diagnostic(
        "llc_ess", "draws", "fewest effective draws of the mean losses",
        "Of the learning coefficient's own chains, over all losses and groups.", source=_VEHTARI,
    ),
    _diagnostic(
        "llc_chains_dropped", NUMBER, "own chains that diverged", "Of the learning coefficient's own chains.",
        source="stagewise.probes.llc_chains",
    ),
    _diagnostic(
        "llc_seconds", SECONDS, "time of its own chains", "Of the learning coefficient's own chains.",
        source="stagewise.probes.llc_chains",
    ),
    # Baselines.
    Variable(
        "graddot", _GROUPS, graddot.UNITS, "gradient dot product",
        "Mean dot product of gradients, over the pairs that its attribute `pairs` names.", graddot.SIGN,
        "GradSim; Pruthi et al. 2020, arXiv 2002.08484",
    ),
    Variable(
        "tracin", _GROUPS, tracin.UNITS, "TracIn", "`graddot` times the learning rates, summed over the run so far.",
        graddot.SIGN, "Pruthi et al. 2020, arXiv 2002.08484",
    ),
    Variable(
        "damped_influence", _GROUPS, damped.UNITS, "damped influence function",
        "-g_i (H + (weight_decay + localization / nbeta) I)^-1 g_j, means over groups. NaN, with the attribute "
        "`refused`, where the matrix is not positive definite.", SIGN, "Koh and Liang 2017, arXiv 1703.04730",
    ),
    # Control.
    *_control("group_bif", "influence of the control", "Within part of chains that do not see the loss (nbeta 0)."),
    *_control("probe_bif", "influence beside the control", "Within part of the probe alone, over the same chains."),
    *_control("difference", "influence less that of the control", "`control_probe_bif` less `control_group_bif`."),
    _diagnostic(
        "control_chains", NUMBER, "chains of the control",
        "Chains that the probe and its control both kept.", source="stagewise.influence.control",
    ),
    # Diagnostics of the chains.
    _diagnostic(
        "lr", "squared weight units", "step size of the chains",
        "As the probe had it: `lr: auto` is lowered on the way where the curvature grows.",
        source="stagewise.callbacks.settings_watch",
    ),
    _diagnostic(
        "lr_curvature", NUMBER, "lr times the steepest curvature",
        "Steepest curvature that a step meets, as last measured before the probe, times `lr`: the step is unstable "
        "where it exceeds 4. NaN if it was not measured.", source="stagewise.calibration.landscape",
    ),
    _diagnostic(
        "chains_common", NUMBER, "chains behind the influence",
        "Chains that the probe and its reference both kept, which influence and its errors are from.",
        source="stagewise.influence.bif",
    ),
    _diagnostic(
        "chains_dropped", NUMBER, "chains that diverged", "Chains of the probe that were left out.",
        source="stagewise.sampling.trace",
    ),
    _diagnostic(
        "equilibrated", NUMBER, "chains in equilibrium",
        "1 where no flag says that the chains are out of equilibrium, else 0.", source="stagewise.probes.flags",
    ),
    _diagnostic(
        "reference_equilibrated", NUMBER, "chains of the reference in equilibrium",
        "1 or 0, as `equilibrated` of the reference; NaN without a reference or a check.",
        source="stagewise.probes.flags",
    ),
    _diagnostic(
        "flagged", NUMBER, "flags of the probe", "Number of reasons not to trust the probe.",
        source="stagewise.probes.flags",
    ),
    _diagnostic(
        "flag_names", "", "names of the flags", "Separated by commas; empty for none.", source="stagewise.probes.flags"
    ),
    _diagnostic(
        "rhat_groups", NUMBER, "largest R-hat of groups", "Over the mean losses of groups; 1 = chains agree.",
        source=_VEHTARI,
    ),
    _diagnostic(
        "ess_groups", "draws", "fewest effective draws of groups",
        "Smallest bulk effective sample size over the mean losses of groups, all chains together.", source=_VEHTARI,
    ),
    _diagnostic(
        "rhat_groups_chance", NUMBER, "R-hat of groups by chance",
        "Limit that `rhat_groups` of chains in equilibrium exceeds in one of a hundred probes.",
    ),
    _diagnostic("rhat_max", NUMBER, "largest R-hat of samples", "Over the losses of samples.", source=_VEHTARI),
    _diagnostic(
        "ess_min", "draws", "fewest effective draws of samples",
        "Smallest bulk effective sample size over the losses of samples.", source=_VEHTARI,
    ),
    _diagnostic(
        "rhat_max_chance", NUMBER, "R-hat of samples by chance",
        "Limit that `rhat_max` of chains in equilibrium exceeds in one of a hundred probes.",
    ),
    _diagnostic(
        "mcse_mean", NUMBER, "Monte-Carlo error of the mean loss",
        "Standard error of the mean of the mean loss, over the standard deviation of the mean loss.", source=_VEHTARI,
    ),
    _diagnostic(
        "mcse_max", NUMBER, "largest Monte-Carlo error of samples", "The same of the worst sample.", source=_VEHTARI
    ),
    _diagnostic(
        "chain_drift", NUMBER, "drift of the chains",
        "Share of the mean loss's variance within chains that lies between their halves; .75 for a straight slide.",
    ),
    _diagnostic(
        "slide_chance", NUMBER, "chance of the slide",
        "Chance of so large a change of a group's mean loss between the halves where chains do not slide.",
        source="Student 1908; Geweke 1992",
    ),
    _diagnostic(
        "loss_rise", NATS, "rise of the mean loss",
        "Mean loss over the second halves of the chains, less that at the training weights (per token for tokens).",
        sign="negative = chains go on training",
    ),
    _diagnostic(
        "chain_share", NUMBER, "share of variance between chains",
        "Share of the losses' variance that lies between chains, less chance: large if chains have not mixed.",
    ),
    _diagnostic(
        "draw_share", NUMBER, "share of variance between draws",
        "Share that belongs to the draw index, less chance: a slide that chains have in common.",
    ),
    _diagnostic(
        "end_distance", "weight units", "distance of the last draw", "|w - w*| at the last draw, mean over chains."
    ),
    _diagnostic(
        "gradient_over_eps", NUMBER, "gradient over eps of RMSprop",
        "Root mean square of the gradient over eps: far below 1 the preconditioner is the constant 1 / eps.",
    ),
    _diagnostic(
        "minibatch_noise", NUMBER, "heat of minibatches",
        "Variance that minibatch noise adds to a step over that of the injected noise: the relative excess heat.",
    ),
    _diagnostic(
        "seconds", SECONDS, "time of the probe", "Wall-clock time of the probe.", source="stagewise.probes.prober"
    ),
)  # fmt: skip
"""In the order of the documentation."""

BY_NAME = {variable.name: variable for variable in VARIABLES}


def described(run: xr.Dataset) -> xr.Dataset:
    """Adds ``long_name`` and ``units``, and ``sign`` if defined, to the variables of a run.

    Args:
        run: of this or an earlier version; unknown variables are unaffected.
    """
    for name, values in run.variables.items():
        known = BY_NAME.get(str(name))
        if known is not None:
            values.attrs = dict(values.attrs) | {"long_name": known.long_name, "units": known.units}
            if known.sign:
                values.attrs["sign"] = known.sign
    return run
