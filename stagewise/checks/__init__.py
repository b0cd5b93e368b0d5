"""Checks that refuse invalid input before any work, with advice on what to do."""
