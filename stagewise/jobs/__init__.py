"""Cells of long work: their settings, shared out to processes."""
