"""Sampler of tests: a few short chains, one after the other."""

from stagewise.sampling.config import SGLDConfig

SHORT = SGLDConfig(
    lr=1e-3,
    nbeta=10,
    localization=10,
    num_chains=3,
    num_draws=8,
    batch_size=4,
    engine="sequential",
    num_burnin_steps=2,
    num_steps_bw_draws=1,
    drift="plain",
)
