"""Package version, defined here alone."""

__version__ = "0.1.0.dev0"
