"""Preconditioners of the chains: diagonal, and EK-FAC."""
