"""Words of a running command: its own warnings as lines, and no foreign ones that nobody can do anything about."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TIP = "try installing [lit"
"""Lightning advertises two packages of its maker."""

_WARNINGS = (
    # Lightning's own call of a function that torch has renamed.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", r"lightning\.|pytorch_lightning\."),
    # Commands are Python functions here: both are the same arguments.
    ("LightningCLI's args parameter is intended", r"lightning\.|pytorch_lightning\."),
)
"""Beginning of each message, and the modules that it comes from."""


def _is_no_tip(record: logging.LogRecord) -> bool:
    return _TIP not in str(record.msg)


@contextmanager
def plain_words() -> Iterator[None]:
    """Leaves out advertisements, and warnings whose cause is neither the user's nor ours; afterwards all is as before.

    Warnings of stagewise come without the line of code that they come from.

    For the commands alone: in a script of their own, people hear what Lightning and torch have to say.
    """
    loggers = [logging.getLogger(f"{name}.utilities.rank_zero") for name in ("lightning.pytorch", "pytorch_lightning")]
    usual = warnings.formatwarning

    def format_warning(message: Warning | str, *where: Any, **more: Any) -> str:
        return f"warning: {message}\n" if str(message).startswith("stagewise") else usual(message, *where, **more)

    for logger in loggers:
        logger.addFilter(_is_no_tip)
    warnings.formatwarning = format_warning
    try:
        with warnings.catch_warnings():
            for message, module in _WARNINGS:
                warnings.filterwarnings("ignore", message=message, module=module)
            yield
    finally:
        warnings.formatwarning = usual
        for logger in loggers:
            logger.removeFilter(_is_no_tip)
