"""First lines of errors, whatever their message."""

import pytest

from stagewise.errors import first_line


@pytest.mark.parametrize(
    ("error", "line", "typed"),
    [
        (ValueError("one\ntwo"), "one", "ValueError: one"),
        (RuntimeError("\n  \n  far down \nmore"), "far down", "RuntimeError: far down"),
        (MemoryError(), "MemoryError", "MemoryError"),
        (AssertionError("  \n"), "AssertionError", "AssertionError"),
    ],
)
def test_first_line_of_an_error_is_never_empty(error, line, typed):
    assert first_line(error) == line
    assert first_line(error, typed=True) == typed
