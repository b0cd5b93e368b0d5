"""Sampler settings from the curvature of a run."""
