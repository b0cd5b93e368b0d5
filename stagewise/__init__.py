"""Stagewise training-data attribution for PyTorch Lightning."""

from stagewise._version import __version__

__all__ = ["__version__"]
