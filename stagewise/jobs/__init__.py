"""Cells of long studies: their settings, and their distribution over processes."""
