"""Experiment: does reweighting samples inside a window speed an induction head? Arms, seeds, intervals."""
