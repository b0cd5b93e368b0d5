"""Entry point of ``python -m stagewise``."""

from stagewise.cli.main import entry_point

entry_point()
