"""Engines that run the chains: one at a time, or all at once."""
