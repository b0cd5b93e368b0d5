"""Data loaders whose order is a function of (seed, epoch), and which resume anywhere."""
