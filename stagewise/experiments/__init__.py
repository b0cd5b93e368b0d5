"""Experiments that the command line runs over seeds: data, training, measurement, report."""
