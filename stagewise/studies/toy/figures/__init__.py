"""Figures of the toy experiment's report."""
