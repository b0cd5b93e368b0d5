"""Transitions: signals over training and the windows found in them."""
