"""Terms of reports and documentation, a sentence or two each."""

TERMS = {
    "probe": "One measurement during training: chains are run around the current weights, and training goes on as if "
    "nothing had happened.",
    "chain": "A sequence of SGLD steps that starts at the current weights. Several chains with different noise make a "
    "probe; errors come from the differences between them.",
    "draw": "The weights at one step of a chain after burn-in, at which the losses of the observed set are recorded.",
    "burn-in": "Steps at the start of each chain that are not recorded, so that chains forget where they began.",
    "SGLD": "Stochastic gradient Langevin dynamics: gradient steps on minibatches with Gaussian noise added, whose "
    "draws follow a distribution around the weights.",
    "nbeta": "Strength of the loss in that distribution (inverse temperature times the number of samples). A larger "
    "value keeps chains where the loss is low.",
    "localization": "Strength of the pull (gamma) that ties chains to the weights of the probe.",
    "anchor": "The weights of the training run at a probe, where chains start and to which they are tied.",
    "influence (BIF)": "Bayesian influence function: minus the covariance of two losses over the draws, in nats². "
    "Negative is helpful: more weight on one lowers the loss of the other.",
    "correlation": "Influence divided by the standard deviations of both losses: a pure number from -1 to 1.",
    "observed set": "The samples whose losses are recorded. Influence is between these.",
    "sampling set": "The samples on whose minibatches the chains step.",
    "group": "A named part of the observed set, such as a label or a class of tokens. Influence between groups is the "
    "mean over pairs of losses in different samples, far less noisy than a single pair.",
    "phase": "A stretch of training in which losses stay much the same.",
    "transition": "A change from one phase to the next: losses move far between a probe and its reference.",
    "window": "The training steps around a peak of the signal: where a transition was found.",
    "reference": "The earlier probe with which a probe is compared.",
    "signal": "How far the losses have moved since the reference probe, in nats, less what noise alone would show.",
    "within-phase part": "Influence from fluctuations around the mean of a probe's draws. Signs and their changes are "
    "read here.",
    "between-phase part": "Influence from the change of the mean losses since the reference probe: helpful for any two "
    "losses that move in the same direction.",
    "drift": "The part that another centring of the draws removes; it shows how far chains slide.",
    "share": "A part as a fraction of the whole. The localized share of a learning coefficient, if above .5, says that "
    "its height is mostly that of the localization, not of the loss.",
    "common mode": "Almost all pairs have influence of one sign, because chains move all losses at once. Then "
    "differences between pairs tell more than signs.",
    "control": "The same chains from the same noise without the loss. Influence that is as large there says no more "
    "than the dot product of gradients.",
    "equilibrium": "Chains have forgotten their start and fluctuate around a fixed mean. No sign or interval is read "
    "off a probe out of equilibrium.",
    "R-hat": "Spread of all chains together over that within single chains. Near 1 they agree; above about 1.1 they "
    "have not mixed.",
    "effective draws": "Number of independent draws that would be worth as much as the correlated ones of a probe.",
    "heat": "Extra variance of the chains because gradients come from minibatches, relative to the noise that is "
    "added on purpose. It makes influence too large by about as much.",
    "interval": "Range that holds the true value in 95 of 100 cases, from the differences between chains. Where it "
    "leaves zero out, the sign is known.",
    "z": "A value or a change divided by its standard error.",
    "learning coefficient (LLC)": "How fast the loss rises around the weights: half the number of directions that the "
    "loss holds. A rise means a more complex solution.",
    "flag": "A named doubt about a probe, with the setting that would remove it.",
}
"""Definitions by term, plain text, in the order of reading."""
