"""From draws to influence: covariances, groups, standard errors, the within/between split, baselines."""
