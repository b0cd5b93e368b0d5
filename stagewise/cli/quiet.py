"""Output of a running command: its own warnings as lines, without foreign ones that users cannot act on."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TIP = "try installing [lit"
"""Text of Lightning's advertisements for two packages of its maker."""

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
    """Hides advertisements, and warnings caused neither by the user nor by stagewise, inside the context.

    Warnings of stagewise are printed without their line of code. Only commands use this: in users' own scripts, the
    messages of Lightning and torch appear as usual.
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
