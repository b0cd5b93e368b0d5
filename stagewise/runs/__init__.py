"""Runs on disk, finished or in progress, and their analysis."""
