"""Influence from draws: covariances, groups, standard errors, the within/between split, baselines."""
