"""Figures of the intervention experiment."""
