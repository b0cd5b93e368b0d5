"""Finished and running runs as they lie on disk, and what they say."""
