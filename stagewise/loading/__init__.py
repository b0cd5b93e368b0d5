"""Data loaders whose order is a function of (seed, epoch) and which can resume anywhere."""
